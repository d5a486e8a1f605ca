#!lua flags=allow-oom
--#include clock run metrics job finish
-- finish_run: the function returned or failed for good: end its last job and the run, in one stroke (I6).
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 queue  8 step that must be recorded, or ''
--        9 how the job ends: finished|failed|canceled  10 its outcome for RQ  11 and for how long RQ keeps it, s
--        12 completed|failed  13 result  14 error  15 log lines
-- reply  'finished' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, exec, job, run, queue, step = unpack(ARGV, 3, 8)
if not is_leased(job, exec) then
  return redis.call('HGET', run_key(run), 'chained') == lease(job, exec) and 'finished' or 'fenced'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
note_lines(run, worker, ARGV[15])
end_job(job, queue, worker, exec, ARGV[9], ARGV[10], ARGV[11])
local detail = {bytes = #ARGV[13]}
if ARGV[14] ~= '' then detail.error = cmsgpack.unpack(ARGV[14]) end
end_run(run, ARGV[12], worker, detail, {'result', ARGV[13], 'error', ARGV[14], 'chained', lease(job, exec)})
return 'finished'
