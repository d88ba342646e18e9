-- Count what a learner samples and say from where it may draw; or give it the next transitions in order of arrival.
-- KEYS 1 meta  2 counters  3 lengths  4 learners
-- ARGV 1 dataset id  2 prefix of the segment keys  3 learner  4 what it has sampled so far, '' to leave that
--      5 how many to take, '' where the learner draws itself  6 only this many newest transitions, 0 for all
--      7 least policy version  8 bytes of a head  9 bytes of a record  10 bytes of an observation
--      11 where in a record the policy version is
-- Returns {status, inserted, sampled by all learners, held, missed, oldest index, first index to draw from, steps of that
--   segment to leave out, next index, longest, rows};
--   status 1 fine, 3 another or no data set is here; a row is a record and the observation after it, none where the
--   learner draws itself; missed says how many transitions fell out before they were taken.
if redis.call('HGET', KEYS[1], 'dataset_id') ~= ARGV[1] then
  return {3, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}}
end
local counters = redis.call('HMGET', KEYS[2], 'inserted', 'sampled', 'next_index', 'oldest_index', 'held_transitions',
  'longest', 'taken')
for i = 1, 7 do
  counters[i] = tonumber(counters[i] or 0)
end
local inserted, sampled, next_index, oldest_index, held, longest, taken = unpack(counters)
local prefix, learner, is_queue, count = ARGV[2], ARGV[3], ARGV[5] ~= '', tonumber(ARGV[5]) or 0
local newest, least_version = tonumber(ARGV[6]), tonumber(ARGV[7])
local head, record, observation, to_version = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

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

local before = tonumber(redis.call('HGET', KEYS[4], learner) or 0)
local stop = inserted
-- A learner that is behind its own count did not get its last answer, and gets the same transitions again.
local is_repeated = is_queue and before > tonumber(ARGV[4])
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
local from, skipped = oldest_index, 0
if least_version > 0 then
  from = search(from, function(_, _, version) return version >= least_version end)
end
if bound > inserted - held then
  from = search(from, function(_, last) return last > bound end)
end

local rows = {}
if from < next_index then
  local steps, last = about(from)
  skipped = math.max(bound - (last - steps), 0)
  if is_queue then
    local index, step = from, skipped
    taken = last - steps + step
    while #rows < count and taken < stop do
      while #rows < count and step < steps do
        local start = head + step * record
        local row = redis.call('GETRANGE', prefix .. index, start, start + record + observation - 1)
        if #row == record + observation and struct.unpack('<I4', row, to_version + 1) >= least_version then
          rows[#rows + 1] = row
        end
        step = step + 1
      end
      taken = last - steps + step
      if step >= steps and taken < stop then
        index, step = index + 1, 0
        steps, last = about(index)
      end
    end
  end
end

-- Absolute numbers of each learner, so that a request may be repeated.
local after = ARGV[4] ~= '' and tonumber(ARGV[4]) + #rows or before
if after ~= before then
  redis.call('HSET', KEYS[4], learner, string.format('%.0f', after))
  sampled = redis.call('HINCRBY', KEYS[2], 'sampled', string.format('%.0f', after - before))
end
if is_queue and not is_repeated then
  taken = string.format('%.0f', math.max(taken, bound))
  redis.call('HSET', KEYS[4], learner .. ':from', string.format('%.0f', bound), learner .. ':to', taken)
  redis.call('HSET', KEYS[2], 'taken', taken)
end
return {1, inserted, sampled, held, missed, oldest_index, from, skipped, next_index, longest, rows}
