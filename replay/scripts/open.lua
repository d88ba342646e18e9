-- Create the data set of a run, or tell what the existing one is.
-- KEYS 1 meta
-- ARGV 1 format version  2 schema  3 dataset id for a new set, or '' to create none
--      4 capacity, transitions  5 capacity, bytes (0: none)
-- Returns {format version, schema, dataset id, capacity, capacity in bytes} of the set that is now there, as strings;
--   nils where there is none.
if ARGV[3] ~= '' and redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format_version', ARGV[1], 'schema', ARGV[2], 'dataset_id', ARGV[3],
    'capacity', ARGV[4], 'capacity_bytes', ARGV[5])
end
return redis.call('HMGET', KEYS[1], 'format_version', 'schema', 'dataset_id', 'capacity', 'capacity_bytes')
