-- A run begins: idempotency, its record, its first job; shared by dispatch_events (an event), start_ticks (a tick)
-- and replay_run (again).
-- Needs lib/run.lua, lib/metrics.lua, lib/job.lua, lib/queue.lua and lib/cancel_on.lua.
-- KEYS   {P}:once:{app}:{fn}:{event} {P}:run:{run} {P}:runs:{app} {P}:active:{app} {P}:timers, those of the libraries
local counts, queued = {}, {}
local function later(field, by) counts[field] = (counts[field] or 0) + (by or 1) end

local function count_all(app)
  for field, n in pairs(counts) do count(app, field, n) end
end

-- The time by which a run has to begin, or to end, is a timer as those of jobs: `{run}!start`, `{run}!end`.
local function bound_run(run, bound, field, at, ms)
  if ms == 0 then return end
  redis.call('HSET', run_key(run), field, at + ms)
  set_timer(run .. bound, at + ms)
end

-- Its event lies ahead: until then it sleeps, and its bounds count from there.
local function begin_later(run, job, queue, at)
  redis.call('HSET', run_key(run), 'due', at, 'began', at)
  schedule_job(job, queue, at)
end

-- The event of a replay is that of another run: fields of its own say which.
local function begin_run(app, fn, event, name, ts, data, run, retention, location, spec, start_ms, run_ms, detail, ...)
  local job, step, kind, queue = unpack(spec, 1, 4)
  local at = math.max(NOW, tonumber(ts))
  local state, told_of = at > NOW and 'sleeping' or 'queued', {job = job, queue = queue, kind = kind}
  redis.call('HSET', run_key(run), 'app', app, 'function', fn, 'status', 'running', 'state', state, 'created', NOW,
    'event_id', event, 'event_name', name, 'event_ts', ts, 'data', data, 'job', job, 'step', step, 'kind', kind,
    'queue', queue, 'attempt', 1, 'bytes', 0, 'dropped', 0, 'due', '', 'retention', retention, 'location', location, ...)
  bound_run(run, '!start', 'starts_by', at, start_ms)
  bound_run(run, '!end', 'ends_by', at, run_ms)
  redis.call('ZADD', P .. ':runs:' .. app, NOW, run)
  redis.call('ZADD', P .. ':active:' .. app, NOW, run)
  put_job(run, spec, NOW, 'status', 'queued', waiting_fields(spec[8], spec[9]))
  if not queued[queue] then know_queue(queue) end
  queued[queue] = true
  if at > NOW then
    begin_later(run, job, queue, at)
    told_of['until'] = at
  else
    redis.call('RPUSH', R .. ':queue:' .. queue, job)
  end
  redis.call('RPUSH', P .. ':history:' .. run, stamped(told('started', '', 1, '', detail)),
    stamped(told(state, step, 1, '', told_of)))
  later('runs_started|' .. fn .. '||')
  later('active|' .. fn .. '|' .. state .. '|')
end

-- What a child has of its parent: whose it is, and what its parent's middleware has put beside the event. A run whose end
-- is told to nobody has no child whose end would be: else that one's end might begin it anew, for ever.
local function inherited(parent)
  local p = redis.call('HMGET', run_key(parent), 'event_name', 'meta', 'untold')
  local fields = {'parent', parent, 'meta', p[2] or ''}
  if p[3] or string.sub(p[1] or '', 1, 9) == 'flow/run.' then
    fields[5], fields[6] = 'untold', 1
  end
  return fields
end

-- A run is {function, event id, event name, event ts ms, event data, run, idempotency window ms, retention s,
-- location MODULE:APP, job as put_job takes it, ms in which it has to begin and ms in which it has to end (0: none), events
-- that cancel it, as lib/cancel_on.lua has them, or nil, 1 if it may register what undoes its steps, what its middleware has
-- put beside the event, or '', {the run that has invoked it or '', 1 if it does not depend on that} or nil}.
-- Returns {1, run} started; {0, run} this event id has started that run before.
local function start(app, fn, event, name, ts, data, run, window, retention, location, spec, start_ms, run_ms, cancels,
  undoes, meta, invoked)
  local once = P .. ':once:' .. app .. ':' .. fn .. ':' .. event
  local earlier = redis.call('GET', once)
  if earlier then return {0, earlier} end
  -- The run's id follows from the event's place in the stream, or the tick, so what comes again after the window is known as well.
  if redis.call('EXISTS', run_key(run)) == 1 then return {0, run} end
  redis.call('SET', once, run, 'PX', window)
  begin_run(app, fn, event, name, ts, data, run, retention, location, spec, start_ms, run_ms, {event = name, id = event},
    unpack(meta ~= '' and {'meta', meta} or {}))
  if cancels then expect_cancels(app, run, cancels) end
  if undoes == 1 then redis.call('HSET', run_key(run), 'undoes', 1) end
  if invoked and invoked[1] ~= '' then redis.call('HSET', run_key(run), unpack(inherited(invoked[1]))) end
  return {1, run}
end
