-- A run's record, its history and its counters. Counters move in the script that moves the state, and nowhere else (I7).
-- KEYS   {P}:run:{run}, {P}:history:{run}, {P}:metrics:{app}
local HISTORY_LIMIT = 10000

local function run_key(run) return P .. ':run:' .. run end

-- A history entry is the msgpack of {time, kind, step, attempt, worker, detail}; `told` is all of it but the time.
local function told(kind, step, attempt, worker, detail)
  return string.sub(cmsgpack.pack({kind, step, tonumber(attempt) or 0, worker, detail or {}}), 2)
end

local function stamped(rest, at) return '\150\203' .. struct.pack('>d', at or NOW) .. rest end

-- Append to the history; past the limit the oldest entry goes and is counted, never silently.
local function note_told(run, rest, at)
  if redis.call('RPUSH', P .. ':history:' .. run, stamped(rest, at)) > HISTORY_LIMIT then
    redis.call('LPOP', P .. ':history:' .. run)
    redis.call('HINCRBY', run_key(run), 'dropped', 1)
  end
end

local function note(run, kind, step, attempt, worker, detail)
  note_told(run, told(kind, step, attempt, worker, detail))
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

-- One attempt of a step, in fields that the worker names: `fields` is {counter, sum, microseconds}. The counter
-- is `attempts|function|outcome:bucket|label`, so that one number tells the outcomes and the histogram of durations.
local function observe_step(app, fields)
  local key = P .. ':metrics:' .. app
  redis.call('HINCRBY', key, fields[1], 1)
  redis.call('HINCRBY', key, fields[2], fields[3])
end
