-- RQ's books of a job, written as RQ 3 would write them, so that every RQ tool tells the truth about our jobs; and the
-- lease, which is ours. Fields of our own in RQ's job hash begin with flow_. A job's id begins with that of its run.
-- KEYS   {R}:job:{job} {R}:queue:{q} {R}:queues {R}:wip:{q} {R}:finished|failed|scheduled:{q} {R}:results:{job}
--       {R}:execution:{job}:{exec} {R}:executions:{job} {R}:worker:{w} {R}:worker:{w}:executions
--       {P}:leases {P}:timers {P}:queues
-- A lease is named `job:execution` after the job that was claimed. It goes on to the jobs that follow in place: flow_lease of
-- a job says under which one it was run.
-- wip, execution and the worker's list are written by show_job once a job has run for a moment: nobody can see shorter ones.
-- wip scores lie a day ahead: RQ's own cleanup, which even `rq info` triggers, must never take our jobs. Leases expire.
local DAY = 86400
local WAITS = {wait = true, invoke = true, promise = true} -- kinds of steps that something outside the run ends

-- Execution ids that begin with rq- are those of jobs that a stock RQ worker runs: it keeps RQ's books itself.
local function by_rq(exec) return string.sub(exec, 1, 3) == 'rq-' end

local function job_key(job) return R .. ':job:' .. job end
local function run_of(job) return string.sub(job, 1, 26) end

local function place_of_job(job)
  local run, f = run_of(job), redis.call('HMGET', job_key(job), 'flow_run', 'flow_branch')
  for _, branch in pairs(f[1] and {} or by_name(redis.call('HGETALL', open_key(run)))) do -- somebody has deleted the job
    if redis.call('HGET', branch_key(run, branch), 'job') == job then f[2] = branch end
  end
  return place_key(run, f[2])
end

local function exec_of(lease) return string.match(lease, ':(.+)$') end
local function is_held(lease) return lease and lease ~= '' and redis.call('ZSCORE', P .. ':leases', lease) end

-- A new job of a run, made at a time: spec = {id, step, kind, queue, timeout, data, description, result_ttl, failure_ttl};
-- the rest are further fields, `status` among them. What an earlier job of that id has left is forgotten.
-- Its run may be named with a branch.
local function put_job(named, spec, at, ...)
  local key, made = job_key(spec[1]), iso(at)
  local fields = {'created_at', made, 'enqueued_at', made, 'data', spec[6], 'origin', spec[4],
    'description', spec[7], 'timeout', spec[5], 'flow_run', string.sub(named, 1, 26), 'flow_step', spec[2],
    'flow_kind', spec[3], ...}
  if #named > 26 then
    fields[#fields + 1] = 'flow_branch'
    fields[#fields + 1] = string.sub(named, 28)
  end
  if redis.call('HSET', key, unpack(fields)) < #fields / 2 then
    redis.call('DEL', key)
    redis.call('HSET', key, unpack(fields))
  end
end

-- What a stock RQ worker has to know of a job before it runs it; no reader misses it of a job that has ended in place.
local function waiting_fields(result_ttl, failure_ttl)
  return 'result_ttl', result_ttl, 'failure_ttl', failure_ttl, 'flow_queued', NOW,
    'success_callback_name', 'flowlib.job.chain', 'failure_callback_name', 'flowlib.job.chain_failed'
end

-- The fields of a job that is on a worker from now on.
local function started_fields(worker, exec, lease)
  if by_rq(exec) then return 'worker_name', worker, 'flow_lease', lease end
  local now = iso(NOW)
  return 'status', 'started', 'started_at', now, 'last_heartbeat', now, 'ended_at', '', 'worker_name', worker,
    'flow_lease', lease
end

-- The job is not executed any more: out of the lists in which show_job has put it.
local function hide_job(job, queue, worker, lease)
  if redis.call('HGET', job_key(job), 'flow_shown') ~= lease then return end
  local composite = job .. ':' .. exec_of(lease)
  redis.call('HDEL', job_key(job), 'flow_shown')
  redis.call('ZREM', R .. ':wip:' .. queue, composite)
  redis.call('DEL', R .. ':execution:' .. composite, R .. ':executions:' .. job)
  redis.call('SREM', R .. ':worker:' .. worker .. ':executions', composite)
end

-- The job is on no worker any more; nothing is said of how it ended.
local function drop_lease(job, queue, worker, lease)
  redis.call('ZREM', P .. ':leases', lease)
  hide_job(job, queue, worker, lease)
end

local RESULT_TYPE = {finished = 1, failed = 2}

-- How a job ended, for RQ: status is finished, failed or canceled; outcome is the base64 that RQ's Result holds; ttl is
-- how long RQ keeps it. Its hash stays until the run leaves it: it may have to come back to replay the function.
local function list_end(job, queue, worker, exec, status, outcome, ttl)
  if not RESULT_TYPE[status] then return end -- a canceled job is in no registry: RQ would keep it there for ever
  local results = R .. ':results:' .. job
  redis.call('XADD', results, 'MAXLEN', 10, '*', 'type', RESULT_TYPE[status], 'worker_name', worker,
    status == 'failed' and 'exc_string' or 'return_value', outcome, 'execution_id', exec)
  redis.call('EXPIRE', results, ttl)
  redis.call('ZADD', R .. ':' .. status .. ':' .. queue, math.floor(NOW / 1000) + ttl, job)
end

local function end_job(job, queue, worker, exec, lease, status, outcome, ttl)
  if by_rq(exec) then return end
  hide_job(job, queue, worker, lease)
  local now = iso(NOW)
  redis.call('HSET', job_key(job), 'status', status, 'ended_at', now, 'last_heartbeat', now)
  list_end(job, queue, worker, exec, status, outcome, ttl)
end

-- The run goes on from this job, which has ended, or ends now if a status is given.
local function leave_job(job, queue, worker, exec, lease, status, outcome, ttl)
  if by_rq(exec) then return end
  if status ~= '' then
    end_job(job, queue, worker, exec, lease, status, outcome, ttl)
  elseif lease == job .. ':' .. exec then -- it came back to replay the function, and may have been shown at that
    hide_job(job, queue, worker, lease)
  end
  redis.call('EXPIRE', job_key(job), ttl)
end

-- A job that had ended comes back, to replay the function.
local function forget_end(job, queue)
  if redis.call('HEXISTS', job_key(job), 'success_callback_name') == 0 then
    redis.call('HSET', job_key(job), waiting_fields(60, 7 * DAY))
  end
  redis.call('ZREM', R .. ':finished:' .. queue, job)
  redis.call('ZREM', R .. ':failed:' .. queue, job)
end
