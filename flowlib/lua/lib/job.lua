-- RQ's books of a job, written as RQ 3 would write them, so that every RQ tool tells the truth about our jobs; and the
-- lease, which is ours. Fields of our own in RQ's job hash begin with flow_.
-- Keys: {R}:job:{job} {R}:queue:{q} {R}:queues {R}:wip:{q} {R}:finished|failed|scheduled:{q} {R}:results:{job}
--       {R}:execution:{job}:{exec} {R}:executions:{job} {R}:worker:{w} {R}:worker:{w}:executions
--       {P}:leases {P}:timers {P}:queues
-- wip scores lie a day ahead: RQ's own cleanup, which even `rq info` triggers, must never take our jobs. Leases expire.
local DAY = 86400

-- Execution ids that begin with rq- are those of jobs that a stock RQ worker runs: it keeps RQ's books itself.
local function by_rq(exec) return string.sub(exec, 1, 3) == 'rq-' end

local function job_key(job) return R .. ':job:' .. job end
local function lease(job, exec) return job .. ':' .. exec end
local function is_leased(job, exec) return redis.call('ZSCORE', P .. ':leases', lease(job, exec)) end

-- A new job of a run: spec = {id, step, kind, queue, timeout, data, description, result_ttl, failure_ttl}
local function put_job(run, spec, status, at_front)
  local key, now = job_key(spec[1]), iso(NOW)
  redis.call('DEL', key, R .. ':results:' .. spec[1])
  redis.call('HSET', key, 'created_at', now, 'enqueued_at', now, 'data', spec[6], 'origin', spec[4],
    'description', spec[7], 'timeout', spec[5], 'result_ttl', spec[8], 'failure_ttl', spec[9], 'status', status,
    'success_callback_name', 'flowlib.job.chain', 'success_callback_timeout', 3600,
    'failure_callback_name', 'flowlib.job.chain_failed', 'failure_callback_timeout', 3600,
    'flow_run', run, 'flow_step', spec[2], 'flow_kind', spec[3], 'flow_attempt', 1, 'flow_calls', 1, 'flow_losses', 0,
    'flow_queued', ms(NOW))
  if redis.call('SADD', P .. ':queues', spec[4]) == 1 then redis.call('SADD', R .. ':queues', spec[4]) end
  if status == 'queued' then
    redis.call(at_front and 'LPUSH' or 'RPUSH', R .. ':queue:' .. spec[4], spec[1])
  end
end

-- Put a job (back) into its queue. At the front: who has waited before does not wait behind newer runs.
local function queue_job(job, queue, at_front)
  redis.call('HSET', job_key(job), 'status', 'queued', 'enqueued_at', iso(NOW), 'flow_queued', ms(NOW), 'worker_name', '')
  redis.call('PERSIST', job_key(job))
  redis.call(at_front and 'LPUSH' or 'RPUSH', R .. ':queue:' .. queue, job)
end

-- The mirror in RQ's registry is rounded up to whole seconds, so that an RQ scheduler, if any, comes after us.
local function schedule_job(job, queue, due)
  redis.call('HSET', job_key(job), 'status', 'scheduled', 'worker_name', '', 'flow_due', ms(due))
  redis.call('PERSIST', job_key(job))
  redis.call('ZADD', R .. ':scheduled:' .. queue, math.ceil(due / 1000), job)
  redis.call('ZADD', P .. ':timers', ms(due), job)
  if redis.call('ZRANGE', P .. ':timers', 0, 0)[1] == job then redis.call('PUBLISH', P .. ':timers!', ms(due)) end
end

local function unschedule_job(job, queue)
  redis.call('ZREM', P .. ':timers', job)
  redis.call('ZREM', R .. ':scheduled:' .. queue, job)
end

-- The job is on a worker from now on.
local function start_job(job, queue, worker, exec, lease_ms)
  local key, at = job_key(job), ms(NOW / 1000)
  local started = iso(NOW)
  local composite = job .. ':' .. exec
  redis.call('ZADD', P .. ':leases', ms(NOW + lease_ms), composite)
  redis.call('HSET', key, 'flow_exec', exec, 'flow_started', ms(NOW), 'worker_name', worker)
  if by_rq(exec) then return end
  redis.call('HSET', key, 'status', 'started', 'started_at', started, 'last_heartbeat', started,
    'ended_at', '')
  redis.call('ZADD', R .. ':wip:' .. queue, math.floor(NOW / 1000) + DAY, composite)
  redis.call('HSET', R .. ':execution:' .. composite, 'id', exec, 'job_id', job, 'created_at', at, 'last_heartbeat', at,
    'worker_name', worker)
  redis.call('EXPIRE', R .. ':execution:' .. composite, DAY)
  redis.call('ZADD', R .. ':executions:' .. job, math.floor(NOW / 1000) + DAY, exec)
  redis.call('EXPIRE', R .. ':executions:' .. job, DAY)
  redis.call('SADD', R .. ':worker:' .. worker .. ':executions', composite)
end

-- The job is on no worker any more; nothing is said of how it ended.
local function leave_worker(job, queue, worker, exec)
  local composite = job .. ':' .. exec
  redis.call('ZREM', P .. ':leases', composite)
  if by_rq(exec) then return end
  redis.call('ZREM', R .. ':wip:' .. queue, composite)
  redis.call('DEL', R .. ':execution:' .. composite, R .. ':executions:' .. job)
  redis.call('SREM', R .. ':worker:' .. worker .. ':executions', composite)
end

local RESULT_TYPE = {finished = 1, failed = 2}

-- The job has ended: status is finished, failed or canceled; outcome is the base64 that RQ's Result holds, or ''.
local function end_job(job, queue, worker, exec, status, outcome)
  local key = job_key(job)
  local ttl = tonumber(redis.call('HGET', key, status == 'failed' and 'failure_ttl' or 'result_ttl')) or 60
  leave_worker(job, queue, worker, exec)
  if by_rq(exec) then return end
  if status == 'finished' and ttl == 0 then
    redis.call('DEL', key)
  else
    local now = iso(NOW)
    redis.call('HSET', key, 'status', status, 'ended_at', now, 'last_heartbeat', now)
    redis.call('EXPIRE', key, ttl)
    if RESULT_TYPE[status] then -- a canceled job is in no registry: RQ would keep it there for ever
      local results = R .. ':results:' .. job
      local started = tonumber(redis.call('HGET', key, 'flow_started')) or NOW
      redis.call('XADD', results, 'MAXLEN', 10, '*', 'type', RESULT_TYPE[status], 'worker_name', worker,
        status == 'failed' and 'exc_string' or 'return_value', outcome, 'execution_id', exec,
        'execution_started_at', ms(started / 1000), 'execution_ended_at', ms(NOW / 1000))
      redis.call('EXPIRE', results, ttl)
      redis.call('ZADD', R .. ':' .. status .. ':' .. queue, math.floor(NOW / 1000) + ttl, job)
    end
  end
  if status ~= 'canceled' and redis.call('EXISTS', R .. ':worker:' .. worker) == 1 then
    redis.call('HINCRBY', R .. ':worker:' .. worker, (status == 'failed' and 'failed' or 'successful') .. '_job_count', 1)
  end
end
