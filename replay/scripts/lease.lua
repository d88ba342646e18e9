-- Take, keep or give back the right to learn from a run.
-- KEYS 1 lease
-- ARGV 1 holder  2 for how long, ms; 0 gives it back
-- Returns {1, '', 0}, or {0, who has it, ms left} where that is somebody else.
local holder = redis.call('GETRANGE', KEYS[1], 0, -1)
if holder ~= '' and holder ~= ARGV[1] then
  return {0, holder, redis.call('PTTL', KEYS[1])}
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
elseif holder == ARGV[1] then
  -- A server that is out of memory refuses SET, and the learner is alive all the same.
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return {1, '', 0}
