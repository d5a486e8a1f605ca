#!lua flags=allow-oom
--#include clock run metrics job queue wait cancel_on tell children branches finish undo cancel
-- cancel_run: end an unfinished run from outside, and interrupt the body that is running; if it has something to undo, it ends
-- once that is done.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 run  4 reason  5 token of this request: sent again, it gets the same answer
-- reply  {'unknown'} | {'ended', status} | {'cancelled', job, worker that runs it or ''}
local run = ARGV[3]
local r = redis.call('HMGET', run_key(run), 'status', 'job', 'cancelled_by', 'cancelled_at')
if not r[1] then return {'unknown'} end
if r[3] == ARGV[5] then return {'cancelled', r[2], r[4]} end
if r[1] ~= 'running' then return {'ended', r[1]} end
if is_undoing(run) then return {'ended', 'undoing'} end
return {'cancelled', stop_run(run, ARGV[4], {'cancelled_by', ARGV[5]})}
