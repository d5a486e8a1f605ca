-- An unfinished run is ended from outside: its job leaves queue, timers and worker; a late report is fenced (I2).
-- Needs lib/run.lua, lib/metrics.lua, lib/job.lua, lib/queue.lua, lib/wait.lua, lib/branches.lua, lib/finish.lua
-- and lib/undo.lua.
-- A run's children end with it, and theirs with them.
-- KEYS   those of the libraries

-- Returns its job and the worker that had it, or ''; `fields` are further ones of the run. One that undoes what it has done
-- is on its way to its end, and is let go there; one that has ended, as with its parent a moment ago, stays so (I6).
stop_run = function(run, reason, fields)
  if redis.call('HGET', run_key(run), 'status') ~= 'running' or is_undoing(run) then return '', '' end
  local app = redis.call('HGET', run_key(run), 'app')
  end_others(run, run_key(run), app)
  local job, worker = end_place(run, run_key(run), app)
  local told = {'reason', reason, 'cancelled_at', worker, unpack(fields or {})}
  if can_undo(run) then
    undo_first(run, 'cancelled', '\192', reason, told)
  else
    end_run(run, 'cancelled', worker, {reason = reason}, told)
  end
  return job, worker
end
