-- Delete keys of a run, unless a learner holds its lease.
-- KEYS 1 lease  2… keys to delete
-- Returns {who holds the lease, '' for nobody; how many of the keys there were; bytes that they took}; with a holder
--   nothing was deleted.
local holder = redis.call('GETRANGE', KEYS[1], 0, -1)
local count, bytes = 0, 0
if holder == '' then
  for i = 2, #KEYS do
    bytes = bytes + (redis.call('MEMORY', 'USAGE', KEYS[i]) or 0)
    count = count + redis.call('UNLINK', KEYS[i])
  end
end
return {holder, count, bytes}
