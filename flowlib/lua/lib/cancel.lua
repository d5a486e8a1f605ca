-- An unfinished run is ended from outside: its job leaves queue, timers and worker; a late report is fenced (I2).
-- Needs lib/run.lua, lib/metrics.lua, lib/job.lua, lib/queue.lua, lib/wait.lua and lib/finish.lua.
-- KEYS   those of the libraries, channel {R}:pubsub:{worker}

-- A body that is running is interrupted: our workers go by the run, and those of RQ by the job.
local function stop_body(run, job, worker)
  redis.call('PUBLISH', R .. ':pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = job, run_id = run}))
end

-- Returns its job and the worker that had it, or ''; `fields` are further ones of the run.
local function stop_run(run, reason, fields)
  local r = redis.call('HMGET', run_key(run), 'job', 'queue', 'app', 'kind')
  local job, queue = r[1], r[2]
  local f = redis.call('HMGET', job_key(job), 'flow_lease', 'worker_name', 'status', 'flow_run')
  local worker = ''
  unschedule_job(job, queue)
  if r[4] == 'wait' then forget_wait(r[3], job) end
  redis.call('LREM', R .. ':queue:' .. queue, 0, job)
  if is_held(f[1]) then
    worker = f[2] or ''
    drop_lease(job, queue, worker, f[1])
    if not RESULT_TYPE[f[3]] then end_job(job, queue, worker, exec_of(f[1]), f[1], 'canceled', '', 60) end
    stop_body(run, job, worker)
  elseif f[3] then
    redis.call('HSET', job_key(job), 'status', 'canceled', 'ended_at', iso(NOW))
  end
  if not f[4] then -- somebody has deleted the job; a worker may be at it all the same
    for _, lease in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
      if run_of(lease) == run then redis.call('ZREM', P .. ':leases', lease) end
    end
  end
  redis.call('EXPIRE', job_key(job), 60)
  end_run(run, 'cancelled', worker, {reason = reason}, {'reason', reason, 'cancelled_at', worker, unpack(fields or {})})
  return job, worker
end
