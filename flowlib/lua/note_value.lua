#!lua flags=allow-oom
--#include clock run job
-- note_value: remember a value that the function has asked for between its steps (now, uuid, random): the first write wins.
-- It needs no job: there is no body to run, and nothing that could fail.
-- allow-oom: a run that is under way when Redis is full goes on to its end.
-- KEYS   1 {P}:leases   and {P}:memo:{run} {P}:run:{run}
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 its key among the memos
--        11 memo  12 memo that must be there, or '': of the ones before, whose verdicts are not
--        known yet, the last
-- reply  'recorded' | {'recorded', memo} (another place of the run was here first: that is what it is)
--        | 'fenced' | 'unrecorded' (the memo before did not arrive: send it again, first)
local lease, run, fn = ARGV[4], string.sub(ARGV[6], 1, 26), ARGV[8]
local memos = P .. ':memo:' .. run
if not is_held(lease) then return 'fenced' end
if ARGV[12] ~= '' and redis.call('HEXISTS', memos, ARGV[12]) == 0 then return 'unrecorded' end
if redis.call('HSETNX', memos, ARGV[10], ARGV[11]) == 0 then
  local first = redis.call('HGET', memos, ARGV[10])
  return first ~= ARGV[11] and {'recorded', first} or 'recorded' -- its reply was lost
end
redis.call('HINCRBY', run_key(run), 'bytes', #ARGV[11])
redis.call('HINCRBY', run_key(run), 'values', 1)
note(run, 'noted', ARGV[10], 0, ARGV[3], {bytes = #ARGV[11]})
count(ARGV[7], 'memo_bytes|' .. fn .. '||', #ARGV[11])
return 'recorded'
