-- Store one segment exactly once, and drop what falls out of the capacity.
-- KEYS 1 meta  2 counters  3 sequences  4 lengths
-- ARGV 1 dataset id  2 "actor:incarnation"  3 sequence  4 steps  5 frame  6 prefix of the segment keys
-- Returns {status, inserted, sampled, policy version, expected sequence};
--   status 0 already stored, 1 stored now, 2 an earlier sequence is missing, 3 another or no data set is here.
local meta = redis.call('HMGET', KEYS[1], 'dataset_id', 'capacity', 'capacity_bytes')
if meta[1] ~= ARGV[1] then
  return {3, 0, 0, 0, 0}
end
local counters = redis.call('HMGET', KEYS[2], 'inserted', 'sampled', 'policy_version', 'next_index', 'oldest_index',
  'held_transitions', 'held_bytes', 'longest', 'acted_version')
for i = 1, 9 do
  counters[i] = tonumber(counters[i] or 0)
end
local inserted, sampled, policy_version, next_index, oldest_index, held_transitions, held_bytes, longest, acted_version =
  unpack(counters)
local sequence = tonumber(ARGV[3])
local expected = tonumber(redis.call('HGET', KEYS[3], ARGV[2]) or -1) + 1
if sequence ~= expected then
  return {sequence < expected and 0 or 2, inserted, sampled, policy_version, expected}
end

-- The policy version of the last step; replay/codec.py and replay/records.py say where it is.
local steps = tonumber(ARGV[4])
local observation, action, parameters, bits = struct.unpack('<I4I4I4I4', ARGV[5], 17)
local to_version = 4 * (observation + action + parameters + 2)
local record = to_version + 4 * (1 + math.ceil(bits / 32))
local version = struct.unpack('<I4', ARGV[5], 192 + (steps - 1) * record + to_version + 1)

-- First of all writes: a server out of memory refuses this one, and then nothing has changed.
redis.call('SET', ARGV[6] .. next_index, ARGV[5])
redis.call('HSET', KEYS[3], ARGV[2], sequence)
inserted = inserted + steps
acted_version = math.max(acted_version, version)
-- The last two never fall from one segment to the next, so that sample.lua can search them.
redis.call('RPUSH', KEYS[4], string.format('%d %d %.0f %d', steps, #ARGV[5], inserted, acted_version))
next_index = next_index + 1
held_transitions = held_transitions + steps
held_bytes = held_bytes + #ARGV[5]

local capacity, capacity_bytes = tonumber(meta[2]), tonumber(meta[3])
while held_transitions > capacity or (capacity_bytes > 0 and held_bytes > capacity_bytes and oldest_index + 1 < next_index) do
  local old_steps, old_bytes = string.match(redis.call('LPOP', KEYS[4]), '(%d+) (%d+)')
  redis.call('DEL', ARGV[6] .. oldest_index)
  oldest_index = oldest_index + 1
  held_transitions = held_transitions - old_steps
  held_bytes = held_bytes - old_bytes
end
redis.call('HSET', KEYS[2], 'inserted', inserted, 'next_index', next_index, 'oldest_index', oldest_index,
  'held_transitions', held_transitions, 'held_bytes', held_bytes, 'longest', math.max(longest, steps),
  'acted_version', acted_version)
return {1, inserted, sampled, policy_version, sequence}
