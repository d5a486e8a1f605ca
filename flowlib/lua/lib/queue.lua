-- Where a job waits: in its queue, or for its time. Needs lib/job.lua.
-- KEYS   {R}:job:{job} {R}:queue:{q} {R}:queues {R}:scheduled:{q} {P}:timers {P}:queues, channel {P}:timers!
local function know_queue(queue)
  if redis.call('SADD', P .. ':queues', queue) == 1 then redis.call('SADD', R .. ':queues', R .. ':queue:' .. queue) end
end

-- Put a job (back) into its queue. At the front: who has waited before does not wait behind newer runs.
local function queue_job(job, queue, at_front)
  redis.call('HSET', job_key(job), 'status', 'queued', 'enqueued_at', iso(NOW), 'flow_queued', NOW, 'worker_name', '')
  redis.call('PERSIST', job_key(job))
  redis.call(at_front and 'LPUSH' or 'RPUSH', R .. ':queue:' .. queue, job)
end

local function set_timer(job, due)
  redis.call('ZADD', P .. ':timers', due, job)
  if redis.call('ZRANGE', P .. ':timers', 0, 0)[1] == job then redis.call('PUBLISH', P .. ':timers!', due) end
end

-- The mirror in RQ's registry is rounded up to whole seconds, so that an RQ scheduler, if any, comes after us.
local function schedule_job(job, queue, due)
  redis.call('HSET', job_key(job), 'status', 'scheduled', 'worker_name', '', 'flow_due', due)
  redis.call('PERSIST', job_key(job))
  redis.call('ZADD', R .. ':scheduled:' .. queue, math.ceil(due / 1000), job)
  set_timer(job, due)
end

local function unschedule_job(job, queue)
  redis.call('ZREM', P .. ':timers', job)
  redis.call('ZREM', R .. ':scheduled:' .. queue, job)
end
