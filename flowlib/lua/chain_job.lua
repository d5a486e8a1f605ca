#!lua flags=allow-oom
--#include clock run metrics job queue wait children
-- chain_job: the step of this job is recorded; leave it and enqueue that of the next step, in one stroke (I4, I9).
-- A sleep is a job that is due later; so is a wait for an event, which is registered in the same stroke; so is one for a child,
-- which is invoked in it, and for a promise, which may have been settled before.
-- allow-oom: a run that is under way when Redis is full goes on to its end; new runs are refused by dispatch_events.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job
--        11 step that must be recorded, or ''  12 to 14 how the job ends, as leave_job takes it
--        15 push|sleep|wait  16 sleep for ms, or ''  17 sleep until ms, or ''  18 log lines
--        19 to 27 the next job, as put_job takes it  28 a wait, packed: {event name, fields, digest, match for people, timeout ms,
--        since ms, event up to which it has looked back, memo of the one that it has found, its id, 1 if it asks,
--        a child: {its id, data of the event that has it begin, app, function, 1 if it is detached}; nil for what there is not}; one that asks comes back here, with until ms, each time that it has looked
-- reply  'queued' | 'scheduled' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
--        | 'behind' (events have come since: look at them, first) | 'over' (the time of a wait that has come back)
local worker, lease, exec, named, app, fn, queue, job, step = unpack(ARGV, 3, 11)
local run, place = place_of(named)
local mode, spec = ARGV[15], {unpack(ARGV, 19, 27)}
local reply = mode == 'push' and 'queued' or 'scheduled'
if not is_held(lease) then
  -- an earlier try of this very call may have done it, and only its reply was lost
  return redis.call('HGET', place, 'chained') == lease and reply or 'fenced'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
local wait = ARGV[28] and cmsgpack.unpack(ARGV[28]) or {}
local event, fields, digest, match, timeout, since, looked, found, found_id, asks, child = unpack(wait, 1, 11)
if looked and not found and is_behind(event, looked) then return 'behind' end
if asks and not found and ARGV[17] ~= '' and tonumber(ARGV[17]) <= NOW then return 'over' end
note_lines(run, worker, ARGV[18])
drop_lease(job, queue, worker, lease)
leave_job(job, queue, worker, exec, lease, unpack(ARGV, 12, 14))
know_queue(spec[4])
local due, detail = '', {job = spec[1], queue = spec[4], kind = spec[3]}
if mode ~= 'push' then
  due = ARGV[17] ~= '' and tonumber(ARGV[17]) or NOW + tonumber(ARGV[16])
  detail['until'] = due
  put_job(named, spec, NOW, waiting_fields(spec[8], spec[9]))
  schedule_job(spec[1], spec[4], due)
  detail.timeout, detail.child = timeout, child and child[1]
  if spec[3] == 'wait' then detail.event, detail.match, detail.since = event, match, since end
  local state = mode == 'wait' and 'waiting' or 'sleeping'
  note(run, state, spec[2], 1, worker, detail)
  set_state(place, app, fn, 'running', state)
else
  put_job(named, spec, NOW, 'status', 'queued', waiting_fields(spec[8], spec[9]))
  redis.call('RPUSH', R .. ':queue:' .. spec[4], spec[1])
  note(run, 'queued', spec[2], 1, worker, detail)
  set_state(place, app, fn, 'running', 'queued')
end
redis.call('HSET', place, 'job', spec[1], 'step', spec[2], 'kind', spec[3], 'queue', spec[4], 'attempt', 1,
  'chained', lease, 'due', due)
if mode == 'wait' then
  redis.call('HSET', place, 'armed', spec[2])
  register_wait(app, spec[1], event, fields, digest, asks and not found)
end
if child then
  redis.call('HSET', place, 'child', child[5] == 1 and '' or child[1])
  found, found_id = invoke(unpack(child, 1, 4)), child[1]
elseif spec[3] == 'promise' then
  found, found_id = redis.call('HGET', P .. ':memo:' .. run, '=settled:' .. spec[2]), ''
end
if asks then redis.call('HSET', place, 'asks', cmsgpack.pack({spec[2], due, looked or last_event()})) end
if found then deliver_event(app, spec[1], found, found_id) end
return reply
