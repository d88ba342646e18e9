-- Store segments exactly once each, in their order, and drop what falls out of the capacity. Their frames are on the
-- server under staging keys: a frame that went through here as an argument would be hashed and copied twice.
-- KEYS 1 meta  2 counters  3 sequences  4 lengths  5… staging keys, one per segment
-- ARGV 1 dataset id  2 prefix of the segment keys  then for each segment: "actor:incarnation", sequence, steps, policy
--      version of its last step
-- Returns for each segment {status, inserted, sampled, policy version, expected sequence};
--   status 0 already stored, 1 stored now, 2 an earlier sequence is missing, 3 another or no data set is here.
-- What is not stored now stays under its staging key, for the caller to delete in the same transaction.
local replies = {}
local meta = redis.call('HMGET', KEYS[1], 'dataset_id', 'capacity', 'capacity_bytes')
if meta[1] ~= ARGV[1] then
  for i = 1, #KEYS - 4 do
    replies[i] = {3, 0, 0, 0, 0}
  end
  return replies
end
-- Before anything is changed: an error in the middle would leave frames that no counter knows.
local lengths = {}
for i = 1, #KEYS - 4 do
  lengths[i] = redis.call('STRLEN', KEYS[4 + i])
  if lengths[i] == 0 then
    return redis.error_reply('ERR no frame was staged under ' .. KEYS[4 + i])
  end
end
local counters = redis.call('HMGET', KEYS[2], 'inserted', 'sampled', 'policy_version', 'next_index', 'oldest_index',
  'held_transitions', 'held_bytes', 'longest', 'acted_version')
for i = 1, 9 do
  counters[i] = tonumber(counters[i] or 0)
end
local inserted, sampled, policy_version, next_index, oldest_index, held_transitions, held_bytes, longest, acted_version =
  unpack(counters)
local capacity, capacity_bytes = tonumber(meta[2]), tonumber(meta[3])
local prefix, first_index = ARGV[2], next_index

local function store(key, length, steps, version)
  redis.call('RENAME', key, prefix .. next_index)
  inserted = inserted + steps
  acted_version = math.max(acted_version, version)
  -- The last two never fall from one segment to the next, so that sample.lua can search them.
  redis.call('RPUSH', KEYS[4], string.format('%d %d %.0f %d', steps, length, inserted, acted_version))
  next_index = next_index + 1
  longest = math.max(longest, steps)
  held_transitions = held_transitions + steps
  held_bytes = held_bytes + length
  while held_transitions > capacity or (capacity_bytes > 0 and held_bytes > capacity_bytes and oldest_index + 1 < next_index) do
    local old_steps, old_bytes = string.match(redis.call('LPOP', KEYS[4]), '(%d+) (%d+)')
    redis.call('DEL', prefix .. oldest_index)
    oldest_index = oldest_index + 1
    held_transitions = held_transitions - old_steps
    held_bytes = held_bytes - old_bytes
  end
end

for i = 1, #KEYS - 4 do
  local at = 4 * i - 1
  local who, sequence, steps, version = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local expected = tonumber(redis.call('HGET', KEYS[3], who) or -1) + 1
  local status = sequence < expected and 0 or 2
  if sequence == expected then
    store(KEYS[4 + i], lengths[i], steps, version)
    redis.call('HSET', KEYS[3], who, ARGV[at + 1])
    status = 1
  end
  replies[i] = {status, inserted, sampled, policy_version, expected}
end
if next_index > first_index then
  redis.call('HSET', KEYS[2], 'inserted', inserted, 'next_index', next_index, 'oldest_index', oldest_index,
    'held_transitions', held_transitions, 'held_bytes', held_bytes, 'longest', longest, 'acted_version', acted_version)
end
return replies
