-- Read the counters in one go, and set those that the learner owns. Setting is absolute, so it may be repeated.
-- KEYS 1 meta  2 counters
-- ARGV 1 dataset id  2 sampled, or '' to leave it  3 policy version, or '' to leave it
--      4 key of a segment, or ''  5, 6 first and last byte of its mark
-- Returns {status, inserted, sampled, policy version, next index, oldest index, held bytes, mark};
--   status 1 fine, 3 another or no data set is here; the mark is empty where the segment is not held.
if redis.call('HGET', KEYS[1], 'dataset_id') ~= ARGV[1] then
  return {3, 0, 0, 0, 0, 0, 0, ''}
end
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[2], 'sampled', ARGV[2])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], 'policy_version', ARGV[3])
end
local counters = redis.call('HMGET', KEYS[2], 'inserted', 'sampled', 'policy_version', 'next_index', 'oldest_index',
  'held_bytes')
for i = 1, 6 do
  counters[i] = tonumber(counters[i] or 0)
end
counters[7] = ARGV[4] ~= '' and redis.call('GETRANGE', ARGV[4], ARGV[5], ARGV[6]) or ''
return {1, unpack(counters)}
