#!lua
--#include clock run metrics job queue
-- start_run: an event starts a function: idempotency, the run's record and its first job, all or nothing (I5).
-- KEYS   1 {P}:leases (names the slot; scripts build the other keys from the prefixes)
--        {P}:once:{app}:{fn}:{event} {P}:run:{run} {P}:runs:{app} {P}:active:{app}, and those of the libraries
-- ARGV   1 P  2 R  3 app  4 function  5 event id  6 event name  7 event ts ms  8 event data  9 run
--        10 idempotency window ms  11 retention s  12 location MODULE:APP  13.. the job, as put_job takes it
-- reply  {1, run} started; {0, run} this event id has started that run before
local app, fn, run = ARGV[3], ARGV[4], ARGV[9]
local once = P .. ':once:' .. app .. ':' .. fn .. ':' .. ARGV[5]
local earlier = redis.call('GET', once)
if earlier then return {0, earlier} end
-- The run's id follows from the event's place in the stream, so a redelivery after the window is known as well.
if redis.call('EXISTS', run_key(run)) == 1 then return {0, run} end
local spec = {unpack(ARGV, 13, 21)}
redis.call('SET', once, run, 'PX', ARGV[10])
redis.call('HSET', run_key(run), 'app', app, 'function', fn, 'status', 'running', 'state', 'queued', 'created', NOW,
  'event_id', ARGV[5], 'event_name', ARGV[6], 'event_ts', ARGV[7], 'data', ARGV[8], 'job', spec[1], 'step', spec[2],
  'kind', spec[3], 'queue', spec[4], 'attempt', 1, 'bytes', 0, 'dropped', 0, 'due', '',
  'retention', ARGV[11], 'location', ARGV[12])
redis.call('ZADD', P .. ':runs:' .. app, NOW, run)
redis.call('ZADD', P .. ':active:' .. app, NOW, run)
put_job(run, spec, NOW, 'status', 'queued', waiting_fields(spec[8], spec[9]))
know_queue(spec[4])
redis.call('RPUSH', R .. ':queue:' .. spec[4], spec[1])
note(run, 'started', '', 1, '', {event = ARGV[6], id = ARGV[5]})
note(run, 'queued', spec[2], 1, '', {job = spec[1], queue = spec[4], kind = spec[3]})
count(app, 'runs_started|' .. fn .. '||')
count(app, 'active|' .. fn .. '|queued|')
return {1, run}
