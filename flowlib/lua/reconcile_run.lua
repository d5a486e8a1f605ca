#!lua flags=allow-oom
--#include clock run metrics job queue
-- reconcile_run: an unfinished run that nothing would move forward (I4): put the job of its current step back.
-- Looks again at everything in one stroke, so a run that has moved meanwhile is left alone. A sleep keeps its due time.
-- KEYS   1 {P}:leases   and {R}:canceled:{q}, those of the libraries
-- ARGV   1 P  2 R  3 run, or RUN:BRANCH  4.. the job of its current step, as put_job takes it
-- reply  1 put back | 0 nothing was wrong
local run, place = place_of(ARGV[3])
local spec = {unpack(ARGV, 4, 12)}
local r = redis.call('HMGET', run_key(run), 'status', 'app', 'function')
local p = redis.call('HMGET', place, 'job', 'state', 'due', 'step', 'queue', 'attempt')
local job, queue = p[1], p[5]
if r[1] ~= 'running' or job ~= spec[1] then return 0 end
local f = redis.call('HMGET', job_key(job), 'status', 'flow_lease', 'flow_run', 'worker_name')
if f[3] then
  if is_held(f[2]) then return 0 end
  if f[1] == 'scheduled' and redis.call('ZSCORE', P .. ':timers', job) then return 0 end
  if f[1] == 'queued' and redis.call('LPOS', R .. ':queue:' .. queue, job) then return 0 end
else -- somebody has deleted the job; a worker may be at it all the same
  for _, lease in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
    if run_of(lease) == run then return 0 end
  end
end
redis.call('LREM', R .. ':queue:' .. queue, 0, job)
unschedule_job(job, queue)
local due = tonumber(p[3])
local later = due and due > NOW
if f[2] then drop_lease(job, queue, f[4] or '', f[2]) end
if not f[3] then put_job(ARGV[3], spec, NOW, 'status', 'queued', 'flow_attempt', p[6], waiting_fields(spec[8], spec[9])) end
forget_end(job, queue)
redis.call('ZREM', R .. ':canceled:' .. queue, job) -- somebody has cancelled the job, not the run
if later then schedule_job(job, queue, due) else queue_job(job, queue, true) end
note(run, 'recovered', p[4], 0, '', {job = job, queue = queue})
count(r[2], 'recovered|orphan||')
if not later then set_state(place, r[2], r[3], p[2], 'queued') end
return 1
