-- Taking a job that is due: shared by claim_job (from a queue) and adopt_job (one that a stock RQ worker has popped).
-- KEYS   those of lib/run.lua and lib/job.lua, {P}:memo:{run}

-- Nil unless the job is the one that its run waits for; then it is leased, and all that a worker needs is returned:
-- {job, queue, step, kind, attempt, calls, losses, seconds waited, run's hash, memos}
local function take_job(job, worker, exec, lease_ms)
  local f = redis.call('HMGET', job_key(job), 'flow_run', 'origin', 'flow_step', 'flow_kind', 'flow_attempt', 'flow_calls',
    'flow_losses', 'flow_queued', 'flow_exec', 'worker_name')
  local run, queue = f[1], f[2]
  local r = redis.call('HMGET', run_key(run), 'status', 'job', 'app', 'function', 'state')
  if r[1] ~= 'running' or r[2] ~= job then
    redis.call('HSET', job_key(job), 'status', 'canceled')
    redis.call('EXPIRE', job_key(job), 60)
    return nil
  end
  local waited = (NOW - (tonumber(f[8]) or NOW)) / 1000
  redis.call('PERSIST', job_key(job))
  if f[9] then leave_worker(job, queue, f[10] or '', f[9]) end -- whoever had it, has it no more
  grant_lease(job, exec, lease_ms)
  redis.call('HSET', job_key(job), unpack(started_fields(worker, exec)))
  redis.call('HSET', run_key(run), 'due', '')
  set_state(run, r[3], r[4], r[5], 'running')
  note(run, 'claimed', f[3], f[5] or 1, worker, {job = job, queue = queue, waited = waited, losses = tonumber(f[7]) or 0})
  observe(r[3], 'queue_wait', queue, '', WAIT_EDGES, waited)
  return {job, queue, f[3], f[4], f[5] or '1', f[6] or '1', f[7] or '0', string.format('%.6f', waited), redis.call('HGETALL', run_key(run)),
    redis.call('HGETALL', P .. ':memo:' .. run)}
end
