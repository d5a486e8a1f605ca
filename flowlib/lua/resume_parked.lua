#!lua flags=allow-oom
--#include clock run metrics job queue
-- resume_parked: there is a worker that knows these functions: parked runs of theirs go to the front of their queues.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 app  4 at most so many of each  5.. functions
-- reply  how many
local app, resumed = ARGV[3], 0
for i = 5, #ARGV do
  local fn = ARGV[i]
  local parked = redis.call('ZRANGE', P .. ':parked:' .. app .. ':' .. fn, 0, ARGV[4] - 1)
  for n = #parked, 1, -1 do -- the one that has waited for longest to the very front
    local run = parked[n]
    local r = redis.call('HMGET', run_key(run), 'job', 'queue', 'step', 'attempt')
    unschedule_job(r[1], r[2])
    redis.call('HDEL', job_key(r[1]), 'flow_parked')
    redis.call('HSET', run_key(run), 'due', '')
    queue_job(r[1], r[2], true)
    note(run, 'queued', r[3], r[4], '', {job = r[1], queue = r[2], woken = true})
    set_state(run, app, fn, 'parked', 'queued')
    resumed = resumed + 1
  end
end
return resumed
