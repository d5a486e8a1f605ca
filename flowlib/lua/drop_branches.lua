#!lua flags=allow-oom
--#include clock run metrics job queue wait cancel_on tell children branches finish undo cancel
-- drop_branches: steps that lost a race are not waited for any more: their jobs leave queue, timers and workers.
-- KEYS   1 {P}:leases   and those of the libraries
-- ARGV   1 P  2 R  3 worker  4 lease  5 execution id  6 run, or RUN:BRANCH  7 app  8 function  9 queue  10 job
--        11.. the steps
-- reply  'dropped' | 'left' (the job was for one of them) | 'fenced'
local worker, lease, exec, named, app, fn, queue, job = unpack(ARGV, 3, 10)
local run, place = place_of(named)
if not is_held(lease) then return 'fenced' end
local open, mine, first_left = open_key(run), false, false
for i = 11, #ARGV do
  local step = ARGV[i]
  local branch = redis.call('HGET', open, step)
  if branch and redis.call('HEXISTS', P .. ':memo:' .. run, step) == 0 then
    local its = place_key(run, branch)
    redis.call('HDEL', open, step)
    if its == place then
      mine = true
    else
      end_place(run, its, app)
      if its == run_key(run) then first_left = true else redis.call('DEL', its) end
    end
    note(run, 'dropped', step, 1, worker, {})
  end
end
if mine then
  drop_lease(job, queue, worker, lease)
  leave_job(job, queue, worker, exec, lease, 'canceled', '', 60)
  if place == run_key(run) then first_left = true else redis.call('DEL', place) end
end
if first_left then become_first(run, app, fn) end
return mine and 'left' or 'dropped'
