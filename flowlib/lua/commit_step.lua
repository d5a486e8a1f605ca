#!lua flags=allow-oom
--#include clock run job
-- commit_step: write the memo of a step that was run to its end: the first write wins (I1), only the holder may (I2).
-- allow-oom: finished work is recorded also when Redis is full.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue  10 step  11 memo  12 history entry
--        13 log lines  14 memo bytes' counter  15.. the step's metrics, as observe_step takes them; none for a sleep
-- reply  'recorded' (also when an earlier try of this call did it and its reply was lost) | 'fenced'
local worker, exec, job, run, app, fn, queue, step, memo = unpack(ARGV, 3, 11)
if not is_leased(job, exec) or redis.call('HSETNX', P .. ':memo:' .. run, step, memo) == 0 then
  return redis.call('HGET', job_key(job), 'flow_recorded') == exec and 'recorded' or 'fenced'
end
redis.call('HSET', job_key(job), 'flow_recorded', exec)
redis.call('HINCRBY', run_key(run), 'bytes', #memo)
note_lines(run, worker, ARGV[13])
note_told(run, ARGV[12])
count(app, ARGV[14], #memo)
if ARGV[15] then observe_step(app, {unpack(ARGV, 15, 18)}) end
return 'recorded'
