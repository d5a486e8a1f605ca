-- A run's record, its history and its counters. Counters move in the script that moves the state, and nowhere else (I7).
-- Keys: {P}:run:{run}, {P}:history:{run}, {P}:metrics:{app}
local HISTORY_LIMIT = 10000
local STEP_LABELS = 100

local function run_key(run) return P .. ':run:' .. run end

-- Append to the history; past the limit the oldest entry goes and is counted, never silently. An entry is the msgpack
-- of {time, kind, step, attempt, worker, detail}; `told` is all of it but the time, which the worker has packed.
local function note_told(run, told)
  local entry = '\150\203' .. struct.pack('>d', NOW) .. told
  if redis.call('RPUSH', P .. ':history:' .. run, entry) > HISTORY_LIMIT then
    redis.call('LPOP', P .. ':history:' .. run)
    redis.call('HINCRBY', run_key(run), 'dropped', 1)
  end
end

local function note(run, kind, step, attempt, worker, detail)
  note_told(run, string.sub(cmsgpack.pack({kind, step, tonumber(attempt) or 0, worker, detail or {}}), 2))
end

-- Log lines come as {age in ms, level, logger, text, step, attempt}: ages, because a worker's clock may be wrong.
local function note_lines(run, worker, packed)
  if packed == '' then return end
  local now = NOW
  for _, line in ipairs(cmsgpack.unpack(packed)) do
    NOW = now - line[1]
    note(run, 'log', line[5], line[6], worker, {level = line[2], logger = line[3], text = line[4]})
  end
  NOW = now
end

local function count(app, field, by)
  redis.call('HINCRBY', P .. ':metrics:' .. app, field, by or 1)
end

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

-- The same for a step, whose fields the worker names: `fields` is {counter, bucket, sum, microseconds}
local function observe_step(app, fields)
  local key = P .. ':metrics:' .. app
  redis.call('HINCRBY', key, fields[1], 1)
  redis.call('HINCRBY', key, fields[2], 1)
  redis.call('HINCRBY', key, fields[3], fields[4])
end

local WAIT_EDGES = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800}
local RUN_EDGES = {0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400}

-- The state of an unfinished run, and the gauge of runs by state.
local function set_state(run, app, fn, before, after)
  if before == after then return end
  if before then count(app, 'active|' .. fn .. '|' .. before .. '|', -1) end
  if after then
    count(app, 'active|' .. fn .. '|' .. after .. '|', 1)
    redis.call('HSET', run_key(run), 'state', after)
  end
end
