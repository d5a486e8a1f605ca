#!lua
--#include clock run metrics job queue wait claim
-- adopt_job: a stock RQ worker has popped this job by its own means; give it a lease, so that only one reports (I2).
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 lease ms  6 job  7 execution id that we had, when the callback takes over
-- reply  'unknown' | 'stale' (its run does not wait for it) | 'leased' (another worker has it) | {job, queue, step, …}
local worker, exec, job, mine = ARGV[3], ARGV[4], ARGV[6], ARGV[7]
local seen = look_at(job)
if not seen.run then return 'unknown' end
local held = seen.lease and exec_of(seen.lease)
if held and held ~= mine and held ~= exec and is_held(seen.lease) then return 'leased' end
if held then redis.call('ZREM', P .. ':leases', seen.lease) end
local taken = take_job(seen, worker, exec, tonumber(ARGV[5]))
if taken then redis.call('ZREM', P .. ':timers', job) end
return taken or 'stale'
