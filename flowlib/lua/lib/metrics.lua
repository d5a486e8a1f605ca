-- Histograms, labels and the gauge of runs by state. Needs lib/run.lua.
-- KEYS   {P}:metrics:{app}, {P}:run:{run}, {P}:parked:{app}:{fn}
local STEP_LABELS = 100

-- A function has at most 100 step labels of its own; further ones are counted together as `_other`.
local function step_label(app, fn, label)
  local key = P .. ':metrics:' .. app
  local known = 'label|' .. fn .. '||' .. label
  if redis.call('HEXISTS', key, known) == 1 then return label end
  if redis.call('HINCRBY', key, 'labels|' .. fn .. '||', 1) > STEP_LABELS then return '_other' end
  redis.call('HSET', key, known, 1)
  return label
end

local function bucket(edges, seconds)
  for _, edge in ipairs(edges) do
    if seconds <= edge then return edge end
  end
  return '+Inf'
end

-- One observation of a histogram: `name|a|0.5|b` counts, `name|a|sum|b` adds microseconds.
local function observe(app, name, a, b, edges, seconds)
  if seconds < 0 then seconds = 0 end
  local key = P .. ':metrics:' .. app
  redis.call('HINCRBY', key, name .. '|' .. a .. '|' .. bucket(edges, seconds) .. '|' .. b, 1)
  redis.call('HINCRBY', key, name .. '|' .. a .. '|sum|' .. b, math.floor(seconds * 1000000 + 0.5))
end

local WAIT_EDGES = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800}
local RUN_EDGES = {0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400}

-- The state of an unfinished run, by the key of its place, the gauge of runs by state, and who is parked: those whose
-- function nobody knows. A branch has a state, too.
local function set_state(place, app, fn, before, after)
  if before == after then return end
  local is_branch = string.sub(place, 1, #P + 8) == P .. ':branch:'
  local named = string.sub(place, #P + (is_branch and 9 or 6))
  if before == 'parked' then redis.call('ZREM', P .. ':parked:' .. app .. ':' .. fn, named) end
  if after == 'parked' then redis.call('ZADD', P .. ':parked:' .. app .. ':' .. fn, NOW, named) end
  if is_branch then
    redis.call('HSET', place, 'state', after)
    return
  end
  if before then count(app, 'active|' .. fn .. '|' .. before .. '|', -1) end
  if after then
    count(app, 'active|' .. fn .. '|' .. after .. '|', 1)
    redis.call('HSET', place, 'state', after)
  end
end
