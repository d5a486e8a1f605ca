-- A run's record, its history and its counters. Counters move in the script that moves the state, and nowhere else (I7).
-- A run whose steps run side by side goes on in several places at once: its branches. The record of one of them is the
-- run's own; each other has one, with the same fields: job, step, kind, queue, attempt, due, state, asks, armed, chained,
-- entry. Who holds a job of a branch names its run RUN:BRANCH.
-- KEYS   {P}:run:{run}, {P}:branch:{run}:{branch}, {P}:history:{run}, {P}:metrics:{app}
--        {P}:open:{run}, hash: the step that each place is at -> its branch, or 0; only of a run that has been forked and
--        has not come together again
--        {P}:order:{run}, list: the steps that were recorded while it was forked; every replay sees them in this order
local HISTORY_LIMIT = 10000

local function by_name(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

local function run_key(run) return P .. ':run:' .. run end
local function branch_key(run, branch) return P .. ':branch:' .. run .. ':' .. branch end

local function order_key(run) return P .. ':order:' .. run end
local function open_key(run) return P .. ':open:' .. run end

-- Where its place is recorded: that of a branch which the others have left alone is the run's own.
local function place_key(run, branch)
  if branch and branch ~= '' then
    local key = branch_key(run, branch)
    if redis.call('EXISTS', key) == 1 then return key end
  end
  return run_key(run)
end

-- The run, the key of the place's record, and the branch or '': of a run as who holds it names it
local function place_of(named)
  if #named == 26 then return named, run_key(named), '' end
  local run, branch = string.sub(named, 1, 26), string.sub(named, 28)
  return run, place_key(run, branch), branch
end

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
