#!lua flags=allow-oom
--#include clock run job
-- commit_step: write the memo of a step that was run to its end: the first write wins (I1), only the holder may (I2).
-- allow-oom: finished work is recorded also when Redis is full.
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 worker  4 execution id  5 job  6 run  7 app  8 function  9 step  10 memo  11 attempt
--        12 outcome ok|failed|timeout  13 seconds, or '' when nothing was run  14 metrics label  15 log lines
-- reply  'recorded' (also when an earlier try of this call did it and its reply was lost) | 'fenced'
local worker, exec, job, run, app, fn, step = unpack(ARGV, 3, 9)
if redis.call('HGET', job_key(job), 'flow_recorded') == exec then return 'recorded' end
if not is_leased(job, exec) then return 'fenced' end
if redis.call('HSETNX', P .. ':memo:' .. run, step, ARGV[10]) == 0 then return 'fenced' end
redis.call('HSET', job_key(job), 'flow_recorded', exec)
redis.call('HINCRBY', run_key(run), 'recorded', 1)
redis.call('HINCRBY', run_key(run), 'bytes', #ARGV[10])
note_lines(run, worker, ARGV[15])
note(run, 'recorded', step, ARGV[11], worker, {bytes = #ARGV[10], outcome = ARGV[12], seconds = tonumber(ARGV[13])})
count(app, 'memo_bytes|' .. fn .. '||', #ARGV[10])
if ARGV[13] ~= '' then
  local label = step_label(app, fn, ARGV[14])
  count(app, 'attempts|' .. fn .. '|' .. ARGV[12] .. '|' .. label)
  observe(app, 'step_seconds', fn, label, STEP_EDGES, tonumber(ARGV[13]))
end
return 'recorded'
