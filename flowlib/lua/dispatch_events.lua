#!lua
--#include clock run metrics job queue
-- dispatch_events: events start what they trigger in this app, and are acknowledged, all or nothing (I5).
-- A run that begins: idempotency, its record, its first job. An event that comes again starts nothing again.
-- KEYS   1 {P}:events
--        {P}:once:{app}:{fn}:{event} {P}:run:{run} {P}:runs:{app} {P}:active:{app}, and those of the libraries
-- ARGV   1 P  2 R  3 app  4 the events, packed: {stream id, name for the metrics, its runs}; a run is
--        {function, event id, event name, event ts ms, event data, run, idempotency window ms, retention s,
--        location MODULE:APP, job as put_job takes it}
-- reply  for each run in turn {1, run} started; {0, run} this event id has started that run before
local app = ARGV[3]
local replies, counts, queued = {}, {}, {}
local function later(field) counts[field] = (counts[field] or 0) + 1 end

local function start(fn, event, name, ts, data, run, window, retention, location, spec)
  local once = P .. ':once:' .. app .. ':' .. fn .. ':' .. event
  local earlier = redis.call('GET', once)
  if earlier then return {0, earlier} end
  -- The run's id follows from the event's place in the stream, so a redelivery after the window is known as well.
  if redis.call('EXISTS', run_key(run)) == 1 then return {0, run} end
  local job, step, kind, queue = unpack(spec, 1, 4)
  redis.call('SET', once, run, 'PX', window)
  redis.call('HSET', run_key(run), 'app', app, 'function', fn, 'status', 'running', 'state', 'queued', 'created', NOW,
    'event_id', event, 'event_name', name, 'event_ts', ts, 'data', data, 'job', job, 'step', step, 'kind', kind,
    'queue', queue, 'attempt', 1, 'bytes', 0, 'dropped', 0, 'due', '', 'retention', retention, 'location', location)
  redis.call('ZADD', P .. ':runs:' .. app, NOW, run)
  redis.call('ZADD', P .. ':active:' .. app, NOW, run)
  put_job(run, spec, NOW, 'status', 'queued', waiting_fields(spec[8], spec[9]))
  if not queued[queue] then know_queue(queue) end
  queued[queue] = true
  redis.call('RPUSH', R .. ':queue:' .. queue, job)
  redis.call('RPUSH', P .. ':history:' .. run, stamped(told('started', '', 1, '', {event = name, id = event})),
    stamped(told('queued', step, 1, '', {job = job, queue = queue, kind = kind})))
  later('runs_started|' .. fn .. '||')
  later('active|' .. fn .. '|queued|')
  return {1, run}
end

for _, event in ipairs(cmsgpack.unpack(ARGV[4])) do
  for _, run in ipairs(event[3]) do replies[#replies + 1] = start(unpack(run)) end
  if redis.call('XACK', KEYS[1], app, event[1]) == 1 then later('events_received|||' .. event[2]) end
end
for field, n in pairs(counts) do count(app, field, n) end
return replies
