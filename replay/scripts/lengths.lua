-- Lengths of consecutive segments, so that a learner need not read what cannot be a frame.
-- KEYS 1 meta, which only says where the run's keys are
-- ARGV 1 prefix of the segment keys  2 first index  3 last index
-- Returns bytes of each; 0 where there is none, and where the key holds anything but a string.
local lengths = {}
for index = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local length = redis.pcall('STRLEN', ARGV[1] .. index)
  if type(length) == 'table' then
    if not string.find(length.err, 'WRONGTYPE', 1, true) then
      return length
    end
    length = 0
  end
  lengths[#lengths + 1] = length
end
return lengths
