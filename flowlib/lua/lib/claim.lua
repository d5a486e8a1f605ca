-- Taking a job that is due: shared by claim_job (from a queue) and adopt_job (one that a stock RQ worker has popped).
-- KEYS   those of lib/run.lua, lib/job.lua and lib/queue.lua, {P}:memo:{run}

-- Nil unless the job is the one that its run waits for, and its time has come; then it is leased, and all that a worker needs is returned:
-- {job, queue, step, kind, attempt, calls, losses, seconds waited, run's hash, memos,
-- 1 if its last attempt ran over its time and was killed, else 0}
local function take_job(job, worker, exec, lease_ms)
  local key = job_key(job)
  local f = redis.call('HMGET', key, 'flow_run', 'origin', 'flow_step', 'flow_kind', 'flow_attempt', 'flow_calls',
    'flow_losses', 'flow_queued', 'flow_lease', 'worker_name', 'flow_overdue')
  local run, queue, lease = f[1], f[2], job .. ':' .. exec
  local record = redis.call('HGETALL', run_key(run))
  local r = {}
  for i = 1, #record, 2 do r[record[i]] = record[i + 1] end
  if r.status ~= 'running' or r.job ~= job then
    if not RESULT_TYPE[redis.call('HGET', key, 'status')] then -- one that has ended stays as it ended
      redis.call('HSET', key, 'status', 'canceled')
      redis.call('EXPIRE', key, 60)
    end
    return nil
  end
  local due = r.due ~= '' and tonumber(redis.call('ZSCORE', P .. ':timers', job) or 0) or 0
  if due > NOW then -- only by the clock of an RQ scheduler was it time
    schedule_job(job, queue, due)
    return nil
  end
  local waited = (NOW - (tonumber(f[8]) or NOW)) / 1000
  if f[9] ~= lease or not is_held(lease) then -- else it has been taken by this very call before
    redis.call('PERSIST', key)
    if f[9] then drop_lease(job, queue, f[10] or '', f[9]) end -- whoever had it, has it no more
    redis.call('ZADD', P .. ':leases', NOW + lease_ms, lease)
    redis.call('HSET', key, started_fields(worker, exec, lease))
    if r.due ~= '' then redis.call('HSET', run_key(run), 'due', '') end
    set_state(run, r.app, r['function'], r.state, 'running')
    note(run, 'claimed', f[3], f[5] or 1, worker, {job = job, queue = queue, waited = waited, losses = tonumber(f[7]) or 0})
    observe(r.app, 'queue_wait', queue, '', WAIT_EDGES, waited)
  end
  return {job, queue, f[3], f[4], f[5] or '1', f[6] or '1', f[7] or '0', string.format('%.6f', waited), record,
    redis.call('HGETALL', P .. ':memo:' .. run), f[11] == (f[5] or '1') and 1 or 0}
end
