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
  'held_transitions', 'held_bytes')
for i = 1, 7 do
  counters[i] = tonumber(counters[i] or 0)
end
local inserted, sampled, policy_version, next_index, oldest_index, held_transitions, held_bytes = unpack(counters)
local sequence = tonumber(ARGV[3])
local expected = tonumber(redis.call('HGET', KEYS[3], ARGV[2]) or -1) + 1
if sequence ~= expected then
  return {sequence < expected and 0 or 2, inserted, sampled, policy_version, expected}
end

-- First of all writes: a server out of memory refuses this one, and then nothing has changed.
redis.call('SET', ARGV[6] .. next_index, ARGV[5])
redis.call('HSET', KEYS[3], ARGV[2], sequence)
redis.call('RPUSH', KEYS[4], ARGV[4] .. ' ' .. #ARGV[5])
inserted = inserted + ARGV[4]
next_index = next_index + 1
held_transitions = held_transitions + ARGV[4]
held_bytes = held_bytes + #ARGV[5]

local capacity, capacity_bytes = tonumber(meta[2]), tonumber(meta[3])
while held_transitions > capacity or (capacity_bytes > 0 and held_bytes > capacity_bytes and oldest_index + 1 < next_index) do
  local steps, bytes = string.match(redis.call('LPOP', KEYS[4]), '(%d+) (%d+)')
  redis.call('DEL', ARGV[6] .. oldest_index)
  oldest_index = oldest_index + 1
  held_transitions = held_transitions - steps
  held_bytes = held_bytes - bytes
end
redis.call('HSET', KEYS[2], 'inserted', inserted, 'next_index', next_index, 'oldest_index', oldest_index,
  'held_transitions', held_transitions, 'held_bytes', held_bytes)
return {1, inserted, sampled, policy_version, sequence}
