-- The places in which a run goes on side by side. Needs lib/run.lua, lib/metrics.lua, lib/job.lua, lib/queue.lua and lib/wait.lua.
-- KEYS   {P}:open:{run}, channel {R}:pubsub:{worker}
local stop_run -- lib/cancel.lua, which every script has in which places are ended

-- A body that is running is interrupted: our workers go by the lease, and those of RQ by the job.
local function stop_body(job, worker, lease)
  redis.call('PUBLISH', R .. ':pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = job, lease = lease}))
end

-- What the place has invoked, unless detached, is of no use any more. A child that has not begun will not: nobody waits for it.
local function stop_child(run, place)
  local child = redis.call('HGET', place, 'child')
  if child and child ~= '' and redis.call('HGET', run_key(child), 'status') == 'running' then
    stop_run(child, 'run ' .. run .. ', which had invoked it, does not wait for it any more')
  end
end

-- A place is left for good, from outside: its job leaves queue, timers and worker. Returns the job and the worker or ''.
local function end_place(run, place, app)
  local p = redis.call('HMGET', place, 'job', 'queue', 'kind', 'state')
  local job, queue = p[1], p[2]
  if p[4] == 'parked' and place ~= run_key(run) then
    set_state(place, app, redis.call('HGET', run_key(run), 'function'), 'parked', 'queued')
  end
  local f = redis.call('HMGET', job_key(job), 'flow_lease', 'worker_name', 'status', 'flow_run')
  local worker = ''
  unschedule_job(job, queue)
  if WAITS[p[3]] then forget_wait(app, job) end -- before its child ends: nobody is to be told
  if p[3] == 'invoke' then stop_child(run, place) end
  redis.call('LREM', R .. ':queue:' .. queue, 0, job)
  if is_held(f[1]) then
    worker = f[2] or ''
    drop_lease(job, queue, worker, f[1])
    if not RESULT_TYPE[f[3]] then end_job(job, queue, worker, exec_of(f[1]), f[1], 'canceled', '', 60) end
    stop_body(job, worker, f[1])
  elseif f[3] then
    redis.call('HSET', job_key(job), 'status', 'canceled', 'ended_at', iso(NOW))
  end
  if not f[4] then -- somebody has deleted the job; a worker may be at it all the same
    for _, lease in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
      if run_of(lease) == run then redis.call('ZREM', P .. ':leases', lease) end
    end
  end
  redis.call('EXPIRE', job_key(job), 60)
  return job, worker
end

-- The run's own place is left: another takes it over.
local function become_first(run, app, fn)
  for _, branch in pairs(by_name(redis.call('HGETALL', open_key(run)))) do
    local key = branch_key(run, branch)
    local fields = redis.call('HGETALL', key)
    if #fields > 0 then
      local before, after = redis.call('HGET', run_key(run), 'state'), redis.call('HGET', key, 'state')
      redis.call('HDEL', run_key(run), 'asks', 'armed', 'chained', 'child')
      redis.call('HSET', run_key(run), unpack(fields))
      redis.call('DEL', key)
      set_state(run_key(run), app, fn, before, after)
      return
    end
  end
end

-- All places of a run but that one are left for good.
local function end_others(run, place, app)
  local open = by_name(redis.call('HGETALL', open_key(run)))
  if not next(open) then return end
  if place ~= run_key(run) then end_place(run, run_key(run), app) end
  for _, branch in pairs(open) do
    local key = branch_key(run, branch)
    if key ~= place and redis.call('EXISTS', key) == 1 then end_place(run, key, app) end
    redis.call('DEL', key)
  end
  redis.call('DEL', open_key(run))
  redis.call('HDEL', run_key(run), 'forked', 'entry') -- it may be retried, and fork again
end
