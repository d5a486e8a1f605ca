#!lua
--#include clock run metrics job queue wait claim
-- claim_job: pop the first job that is due from the first queue that has one, and lease it: never in nobody's hands (I4).
-- A job whose status is not `queued` was delivered twice; one that its run does not wait for is stale: both are dropped.
-- KEYS   1 {P}:leases   and {R}:suspended {R}:queue:{q}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 lease ms  6 app  7 1: nothing else runs on this worker
--        8 1: stop at an ordinary RQ job  9.. queues in order
-- reply  'suspended' | 'ordinary' (such a job is first) | 'foreign' (only jobs of other apps, or none of ours, are there)
--        | 'idle' | {job, queue, step, …} as take_job says
if redis.call('EXISTS', R .. ':suspended') == 1 then return 'suspended' end
local worker, exec, lease_ms, app = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local key, foreign = R .. ':worker:' .. worker, false
-- An earlier try of this very call may have done it, and only its reply was lost.
local slot = 'flow_claimed:' .. string.match(exec, '^[^-]*')
local known = redis.call('HMGET', key, slot, 'state')
local earlier = known[1]
if earlier and exec_of(earlier) == exec and is_held(earlier) then
  local job = look_at(string.match(earlier, '^[^:]+'))
  return job.run and take_job(job, worker, exec, lease_ms) or 'idle' -- its sender has gone on in place, or it was deleted
end
for q = 9, #ARGV do
  local list = R .. ':queue:' .. ARGV[q]
  local put_back
  for _ = 1, 100 do
    local job = redis.call('LPOP', list)
    if not job then break end
    if job == put_back then -- all of them have been looked at
      redis.call('LPUSH', list, job)
      break
    end
    local seen = look_at(job)
    if seen.run and (seen.of_run.app or app) == app then
      if seen.status == 'queued' then
        local taken = take_job(seen, worker, exec, lease_ms)
        if taken then
          redis.call('HSET', key, 'state', 'busy', slot, job .. ':' .. exec)
          return taken
        end
      end
    elseif seen.exists then
      if not seen.run and ARGV[8] == '1' then
        redis.call('LPUSH', list, job)
        return 'ordinary'
      end
      redis.call('RPUSH', list, job) -- an ordinary RQ job, or another app's: for its own workers to take
      put_back, foreign = put_back or job, true
    end
  end
end
if ARGV[7] == '1' and known[2] ~= 'idle' then redis.call('HSET', key, 'state', 'idle') end
return foreign and 'foreign' or 'idle'
