-- Taking a job that is due: shared by claim_job (from a queue) and adopt_job (one that a stock RQ worker has popped).
-- KEYS   those of lib/run.lua, lib/job.lua, lib/queue.lua and lib/wait.lua
local FEW_MEMOS, FEW_BYTES = 32, 1024

-- A job and its run, as stored: {id, fields, the run's fields by name, those as Redis gives them}
local function look_at(job)
  local f = redis.call('HMGET', job_key(job), 'flow_run', 'origin', 'flow_step', 'flow_kind', 'flow_attempt',
    'flow_calls', 'flow_losses', 'flow_queued', 'flow_lease', 'worker_name', 'flow_overdue', 'status', 'data',
    'flow_branch')
  local seen = {id = job, run = f[1], queue = f[2], step = f[3], kind = f[4], attempt = f[5] or '1', calls = f[6] or '1',
    losses = f[7] or '0', queued = f[8], lease = f[9], worker = f[10] or '', overdue = f[11], status = f[12],
    exists = f[13], branch = f[14], record = {}, of_run = {}}
  if seen.run then
    seen.record = redis.call('HGETALL', run_key(seen.run))
    seen.of_run = by_name(seen.record)
  end
  return seen
end

-- Nil unless the job is the one that its run waits for, and its time has come; then it is leased, and all that a worker
-- needs is returned: {job, queue, step, kind, attempt, calls, losses, seconds waited, run's hash, memos or how many there
-- are (of many it is better to fetch them by HGETALL, which costs a tenth of what it does through here), 1 if its last
-- attempt ran over its time and was killed, else 0}. Of a branch, its name and fields are behind those of the run's hash.
local function take_job(seen, worker, exec, lease_ms)
  local job, run, queue, r = seen.id, seen.run, seen.queue, seen.of_run
  local key, lease = job_key(job), job .. ':' .. exec
  local place, p = run_key(run), r
  if seen.branch and place_key(run, seen.branch) ~= place then
    place = branch_key(run, seen.branch)
    p = by_name(redis.call('HGETALL', place))
    for name, value in pairs({branch = seen.branch, asks = p.asks or '', armed = p.armed or ''}) do
      seen.record[#seen.record + 1] = name
      seen.record[#seen.record + 1] = value
    end
  end
  if r.status ~= 'running' or p.job ~= job then
    if not RESULT_TYPE[seen.status] then -- one that has ended stays as it ended
      redis.call('HSET', key, 'status', 'canceled')
      redis.call('EXPIRE', key, 60)
    end
    return nil
  end
  local due = p.due ~= '' and tonumber(redis.call('ZSCORE', P .. ':timers', job) or 0) or 0
  if due > NOW then -- only by the clock of an RQ scheduler was it time
    schedule_job(job, queue, due)
    return nil
  end
  local waited = (NOW - (tonumber(seen.queued) or NOW)) / 1000
  if seen.lease ~= lease or not is_held(lease) then -- else it has been taken by this very call before
    redis.call('PERSIST', key)
    if seen.lease then drop_lease(job, queue, seen.worker, seen.lease) end -- whoever had it, has it no more
    redis.call('ZADD', P .. ':leases', NOW + lease_ms, lease)
    redis.call('HSET', key, started_fields(worker, exec, lease))
    if WAITS[seen.kind] then forget_wait(r.app, job) end -- its time is over: from now on no event decides
    if r.starts_by then -- it has begun in time
      redis.call('ZREM', P .. ':timers', run .. '!start')
      redis.call('HDEL', run_key(run), 'starts_by')
    end
    if p.due ~= '' then redis.call('HSET', place, 'due', '') end
    set_state(place, r.app, r['function'], p.state, 'running')
    note(run, 'claimed', seen.step, seen.attempt, worker,
      {job = job, queue = queue, waited = waited, losses = tonumber(seen.losses)})
    observe(r.app, 'queue_wait', queue, '', WAIT_EDGES, waited)
  end
  local memos = P .. ':memo:' .. run
  local many = tonumber(r.bytes or 0) > FEW_BYTES and redis.call('HLEN', memos) or 0
  return {job, queue, seen.step, seen.kind, seen.attempt, seen.calls, seen.losses, string.format('%.6f', waited),
    seen.record, many > FEW_MEMOS and many or redis.call('HGETALL', memos), seen.overdue == seen.attempt and 1 or 0}
end
