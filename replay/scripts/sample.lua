-- Draw transitions on the server, uniform with replacement, or take each once in order of arrival; and count them.
-- KEYS 1 meta  2 counters  3 lengths  4 learners
-- ARGV 1 dataset id  2 prefix of the segment keys  3 learner  4 what this learner has sampled so far, this batch included
--      5 how many  6 seed, or '' for first in, first out  7 only this many newest transitions, 0 for all
--      8 least policy version  9 bytes of a head  10 bytes of a record  11 bytes of an observation
--      12 where in a record the policy version is
-- Returns {status, inserted, sampled by all learners, policy version, held, missed, rows};
--   status 1 fine, 3 another or no data set is here; a row is a record and the observation after it;
--   missed says how many transitions fell out before they were taken.
if redis.call('HGET', KEYS[1], 'dataset_id') ~= ARGV[1] then
  return {3, 0, 0, 0, 0, 0, ''}
end
local counters = redis.call('HMGET', KEYS[2], 'inserted', 'sampled', 'policy_version', 'next_index', 'oldest_index',
  'held_transitions', 'longest', 'taken')
for i = 1, 8 do
  counters[i] = tonumber(counters[i] or 0)
end
local inserted, sampled, policy_version, next_index, oldest_index, held, longest, taken = unpack(counters)
local prefix, count, newest, least_version = ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[8])
local head, record, observation, to_version = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])

-- Steps, number of transitions up to its end, and newest policy version up to its end, of a segment held.
local function about(index)
  local steps, _, last, version = string.match(redis.call('LINDEX', KEYS[3], index - oldest_index),
    '(%d+) (%d+) (%d+) (%d+)')
  return tonumber(steps), tonumber(last), tonumber(version)
end

-- The first segment from `low` on for which `is_past` holds; it holds for all behind.
local function search(low, is_past)
  local high = next_index
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_past(about(middle)) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

-- Row of a transition; nil where the segment is shorter or the policy older.
local function read(index, step)
  local start = head + step * record
  local row = redis.call('GETRANGE', prefix .. index, start, start + record + observation - 1)
  if #row < record + observation or (least_version > 0 and struct.unpack('<I4', row, to_version + 1) < least_version) then
    return nil
  end
  return row
end

local learner, is_queue = ARGV[3], ARGV[6] == ''
local before = tonumber(redis.call('HGET', KEYS[4], learner) or 0)
local stop = inserted
-- A learner that is behind its own count did not get its last answer, and gets the same transitions again.
local is_repeated = is_queue and before > tonumber(ARGV[4]) - count
if is_repeated then
  local range = redis.call('HMGET', KEYS[4], learner .. ':from', learner .. ':to')
  taken, stop = tonumber(range[1] or 0), tonumber(range[2] or 0)
end

-- Transitions up to here are too old, have fallen out, or were taken before.
local bound = newest > 0 and math.max(inserted - newest, inserted - held) or inserted - held
local missed = 0
if is_queue then
  missed = math.max(inserted - held - taken, 0)
  bound = math.max(bound, taken)
end
local from = oldest_index
if least_version > 0 then
  from = search(from, function(_, _, version) return version >= least_version end)
end
if bound > inserted - held then
  from = search(from, function(_, last) return last > bound end)
end

local rows = {}
if from < next_index then
  local steps, last = about(from)
  local skipped = math.max(bound - (last - steps), 0)
  if is_queue then
    local index, step = from, skipped
    taken = last - steps + step
    while #rows < count and index < next_index and taken < stop do
      while #rows < count and step < steps do
        rows[#rows + 1] = read(index, step)
        step = step + 1
      end
      taken = last - steps + step
      if step >= steps then
        index, step = index + 1, 0
        if index < next_index then
          steps, last = about(index)
        end
      end
    end
  else
    math.randomseed(tonumber(ARGV[6]))
    local tries = count * (2 * longest + 100)
    while #rows < count and tries > 0 do
      tries = tries - 1
      local index = from + math.floor(math.random() * (next_index - from))
      local step = math.floor(math.random() * longest)
      if index > from or step >= skipped then
        rows[#rows + 1] = read(index, step)
      end
    end
  end
end

-- Absolute numbers of each learner, so that a request may be repeated.
local after = tonumber(ARGV[4]) - count + #rows
if count > 0 and after ~= before then
  redis.call('HSET', KEYS[4], learner, string.format('%.0f', after))
  sampled = redis.call('HINCRBY', KEYS[2], 'sampled', string.format('%.0f', after - before))
end
if is_queue and not is_repeated then
  redis.call('HSET', KEYS[4], learner .. ':from', string.format('%.0f', bound), learner .. ':to',
    string.format('%.0f', math.max(taken, bound)))
  redis.call('HSET', KEYS[2], 'taken', string.format('%.0f', math.max(taken, bound)))
end
return {1, inserted, sampled, policy_version, held, missed, table.concat(rows)}
