#!lua flags=allow-oom
--#include clock run metrics job finish
-- finish_run: the function returned or failed for good: end its last job and the run, in one stroke (I6).
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 queue  10 step that must be recorded, or ''
--        11 how the job ends: finished|failed|canceled  12 its outcome for RQ  13 and for how long RQ keeps it, s
--        14 completed|failed  15 result  16 error  17 log lines
-- reply  'finished' | 'fenced' | 'unrecorded' (the memo did not arrive: send it again, first)
local worker, exec, job, run, _, _, queue, step = unpack(ARGV, 3, 10)
if not is_leased(job, exec) then
  return redis.call('HGET', run_key(run), 'chained') == lease(job, exec) and 'finished' or 'fenced'
end
if step ~= '' and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then return 'unrecorded' end
note_lines(run, worker, ARGV[17])
end_job(job, queue, worker, exec, ARGV[11], ARGV[12], ARGV[13])
local detail = {bytes = #ARGV[15]}
if ARGV[16] ~= '' then detail.error = cmsgpack.unpack(ARGV[16]) end
end_run(run, ARGV[14], worker, detail, {'result', ARGV[15], 'error', ARGV[16], 'chained', lease(job, exec)})
return 'finished'
