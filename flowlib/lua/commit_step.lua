#!lua flags=allow-oom
--#include clock run job
-- commit_step: write the memo of a step that was run to its end: the first write wins (I1), only the holder may (I2).
-- Its job has ended with that; the lease stays, to go on from there. A step that was over before Redis heard of it (in
-- place, and short) gets its job now, in the same stroke.
-- allow-oom: finished work is recorded also when Redis is full.
-- KEYS   1 {P}:leases   and {P}:memo:{run} {P}:events {R}:suspended, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 the rest, packed (it is much):
--        1 step  2 memo  3 bytes of all memos, or nil: it has gone on in several places  4 history entry  5 log lines  6 how the job ends: finished|failed
--        7 its outcome for RQ  8 how long RQ keeps it, s  9 job of the run so far
--        10 the step's metrics, as observe_step takes them, or nil for a sleep
--        11 step that must be recorded, or '': of the ones before, whose verdicts are not known yet, the last
--        12 events that it sends: {id, name, data, ts ms (0: now), meta} each; or nil
--        further, if the step's job is new: 13 to 15 how the one so far ends, as leave_job takes it  16 how old it is, ms
--        17 the new job, as put_job takes it
-- reply  'recorded' | 'suspended' (recorded, and RQ's workers are to take nothing more) | 'fenced'
--        | 'unrecorded' (the memo before did not arrive: send it again, first)
local worker, lease, exec, named, app, fn, queue = unpack(ARGV, 3, 9)
if not is_held(lease) then return 'fenced' end
local run, place = place_of(named)
local told = cmsgpack.unpack(ARGV[10])
local step, memo, bytes, entry, lines, status, outcome, ttl, job, metrics, after, events = unpack(told, 1, 12)
local memos = P .. ':memo:' .. run
if after ~= '' and redis.call('HEXISTS', memos, after) == 0 then return 'unrecorded' end
if redis.call('HSETNX', memos, step, memo) == 0 then return 'recorded' end -- its reply was lost
local spec = told[17]
if spec then
  local before, now = NOW - told[16], iso(NOW)
  leave_job(job, queue, worker, exec, lease, unpack(told, 13, 15))
  job = spec[1]
  put_job(named, spec, before, 'status', status, 'started_at', iso(before), 'ended_at', now, 'last_heartbeat', now,
    'worker_name', worker, 'flow_lease', lease)
  list_end(job, queue, worker, exec, status, outcome, ttl)
  redis.call('HSET', place, 'bytes', bytes or redis.call('HGET', run_key(run), 'bytes'), 'job', job, 'step', step,
    'kind', spec[3], 'attempt', 1)
else
  end_job(job, queue, worker, exec, lease, status, outcome, ttl)
  if bytes then redis.call('HSET', place, 'bytes', bytes) end
end
if not bytes then -- also once it has come together again: what every replay sees side by side has to have an order
  redis.call('HINCRBY', run_key(run), 'bytes', #memo)
  redis.call('RPUSH', order_key(run), step)
end
for _, event in ipairs(events or {}) do
  redis.call('XADD', P .. ':events', '*', 'id', event[1], 'name', event[2], 'data', event[3], 'ts', event[4],
    unpack(event[5] ~= '' and {'meta', event[5]} or {}))
end
note_lines(run, worker, lines)
note_told(run, entry)
count(app, 'memo_bytes|' .. fn .. '||', #memo)
if metrics then observe_step(app, metrics) end
return redis.call('EXISTS', R .. ':suspended') == 1 and 'suspended' or 'recorded'
