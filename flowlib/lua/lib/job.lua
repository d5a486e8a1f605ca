-- RQ's books of a job, written as RQ 3 would write them, so that every RQ tool tells the truth about our jobs; and the
-- lease, which is ours. Fields of our own in RQ's job hash begin with flow_.
-- KEYS   {R}:job:{job} {R}:queue:{q} {R}:queues {R}:wip:{q} {R}:finished|failed|scheduled:{q} {R}:results:{job}
--       {R}:execution:{job}:{exec} {R}:executions:{job} {R}:worker:{w} {R}:worker:{w}:executions
--       {P}:leases {P}:timers {P}:queues
-- wip, execution and the worker's list are written by show_job once a job has run for a moment: nobody can see shorter ones.
-- wip scores lie a day ahead: RQ's own cleanup, which even `rq info` triggers, must never take our jobs. Leases expire.
local DAY = 86400

-- Execution ids that begin with rq- are those of jobs that a stock RQ worker runs: it keeps RQ's books itself.
local function by_rq(exec) return string.sub(exec, 1, 3) == 'rq-' end

local function job_key(job) return R .. ':job:' .. job end
local function lease(job, exec) return job .. ':' .. exec end
local function is_leased(job, exec) return redis.call('ZSCORE', P .. ':leases', lease(job, exec)) end

-- A new job of a run: spec = {id, step, kind, queue, timeout, data, description, result_ttl, failure_ttl}; `more` are
-- further fields. What an earlier job of that id has left is forgotten.
local function put_job(run, spec, status, more)
  local key, now = job_key(spec[1]), iso(NOW)
  redis.call('DEL', key)
  redis.call('HSET', key, 'created_at', now, 'enqueued_at', now, 'data', spec[6], 'origin', spec[4],
    'description', spec[7], 'timeout', spec[5], 'result_ttl', spec[8], 'failure_ttl', spec[9], 'status', status,
    'success_callback_name', 'flowlib.job.chain', 'failure_callback_name', 'flowlib.job.chain_failed',
    'flow_run', run, 'flow_step', spec[2], 'flow_kind', spec[3], 'flow_queued', NOW, unpack(more or {}))
end

-- The fields of a job that is on a worker from now on, and its lease.
local function started_fields(worker, exec)
  if by_rq(exec) then return {'worker_name', worker, 'flow_exec', exec} end
  local now = iso(NOW)
  return {'status', 'started', 'started_at', now, 'last_heartbeat', now, 'ended_at', '', 'worker_name', worker,
    'flow_exec', exec}
end

local function grant_lease(job, exec, lease_ms)
  redis.call('ZADD', P .. ':leases', NOW + lease_ms, lease(job, exec))
end

-- The job is on no worker any more; nothing is said of how it ended.
local function leave_worker(job, queue, worker, exec)
  redis.call('ZREM', P .. ':leases', lease(job, exec))
  if redis.call('HGET', job_key(job), 'flow_shown') ~= exec then return end
  local composite = lease(job, exec)
  redis.call('ZREM', R .. ':wip:' .. queue, composite)
  redis.call('DEL', R .. ':execution:' .. composite, R .. ':executions:' .. job)
  redis.call('SREM', R .. ':worker:' .. worker .. ':executions', composite)
end

local RESULT_TYPE = {finished = 1, failed = 2}

-- The job has ended: status is finished, failed or canceled; outcome is the base64 that RQ's Result holds; ttl is how
-- long RQ keeps it.
local function end_job(job, queue, worker, exec, status, outcome, ttl)
  leave_worker(job, queue, worker, exec)
  if by_rq(exec) then return end
  local key, now = job_key(job), iso(NOW)
  redis.call('HSET', key, 'status', status, 'ended_at', now, 'last_heartbeat', now)
  redis.call('EXPIRE', key, ttl)
  if not RESULT_TYPE[status] then return end -- a canceled job is in no registry: RQ would keep it there for ever
  local results = R .. ':results:' .. job
  redis.call('XADD', results, 'MAXLEN', 10, '*', 'type', RESULT_TYPE[status], 'worker_name', worker,
    status == 'failed' and 'exc_string' or 'return_value', outcome, 'execution_id', exec)
  redis.call('EXPIRE', results, ttl)
  redis.call('ZADD', R .. ':' .. status .. ':' .. queue, math.floor(NOW / 1000) + ttl, job)
end
