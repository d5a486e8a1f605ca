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
    local run, place = place_of(parked[n])
    local p = redis.call('HMGET', place, 'job', 'queue', 'step', 'attempt', 'state')
    redis.call('ZREM', P .. ':parked:' .. app .. ':' .. fn, parked[n])
    if p[5] == 'parked' then
      unschedule_job(p[1], p[2])
      redis.call('HDEL', job_key(p[1]), 'flow_parked')
      redis.call('HSET', place, 'due', '')
      queue_job(p[1], p[2], true)
      note(run, 'queued', p[3], p[4], '', {job = p[1], queue = p[2], woken = true})
      set_state(place, app, fn, 'parked', 'queued')
      resumed = resumed + 1
    end
  end
end
return resumed
