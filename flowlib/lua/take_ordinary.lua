#!lua
--#include clock ordinary
-- take_ordinary: the next ordinary RQ job, one that no run has put there, under a lease of ours: first one that a dead
-- worker has left, else the head of the first queue. Until it begins it lies in RQ's intermediate queue, where RQ's own
-- maintenance finds it, too: a job is never in nobody's hands.
-- KEYS   1 {P}:leases (names the slot)   and {P}:ordinary:{q} {R}:suspended {R}:queue:{q} {R}:queue:{q}:intermediate
--        {R}:job:{job} {R}:wip:{q} {R}:execution:{job}:{exec} {R}:executions:{job} {R}:worker:{w} {R}:worker:{w}:executions
-- ARGV   1 P  2 R  3 worker  4 execution id  5 lease ms  6.. queues in order
-- reply  nil | {job, queue, the worker that died when it had begun it, or ''}
local worker, exec, lease_ms, ttl = ARGV[3], ARGV[4], tonumber(ARGV[5]), HEARTBEAT
local OVER = {started = true, finished = true, failed = true, stopped = true, canceled = true}
local seconds = math.floor(NOW / 1000)

-- What rq.executions.Execution.create writes, and the lease.
local function lease(job, queue, died)
  local composite, index = job .. ':' .. exec, R .. ':worker:' .. worker
  redis.call('ZADD', P .. ':ordinary:' .. queue, NOW + lease_ms, composite)
  redis.call('HSET', R .. ':execution:' .. composite, 'id', exec, 'job_id', job, 'created_at', NOW / 1000,
    'last_heartbeat', NOW / 1000, 'worker_name', worker)
  redis.call('EXPIRE', R .. ':execution:' .. composite, ttl)
  redis.call('ZADD', R .. ':executions:' .. job, seconds + ttl + 60, exec)
  redis.call('EXPIRE', R .. ':executions:' .. job, ttl + 60)
  redis.call('ZADD', R .. ':wip:' .. queue, seconds + ttl, composite)
  redis.call('SADD', index .. ':executions', composite)
  redis.call('EXPIRE', index .. ':executions', ttl + 60)
  redis.call('HSET', index, 'state', 'busy')
  redis.call('HSET', R .. ':job:' .. job, 'worker_name', worker)
  return {job, queue, died}
end

local function forget(composite, job, queue)
  local dead = redis.call('HGET', R .. ':execution:' .. composite, 'worker_name')
  redis.call('ZREM', P .. ':ordinary:' .. queue, composite)
  redis.call('ZREM', R .. ':executions:' .. job, string.sub(composite, #job + 2))
  redis.call('DEL', R .. ':execution:' .. composite)
  if dead then redis.call('SREM', R .. ':worker:' .. dead .. ':executions', composite) end
  return redis.call('ZREM', R .. ':wip:' .. queue, composite) == 1
end

if redis.call('EXISTS', R .. ':suspended') == 1 then return nil end
for q = 6, #ARGV do
  local queue = ARGV[q]
  local list = R .. ':queue:' .. queue
  local hands = list .. ':intermediate'
  for _, composite in ipairs(redis.call('ZRANGEBYSCORE', P .. ':ordinary:' .. queue, '-inf', NOW, 'LIMIT', 0, 100)) do
    local job = string.match(composite, '^[^:]+')
    local unreported = forget(composite, job, queue)
    local begun = not redis.call('LPOS', hands, job)
    local f = redis.call('HMGET', R .. ':job:' .. job, 'data', 'worker_name')
    if not f[1] then
      redis.call('LREM', hands, 0, job)
    elseif not begun or unreported then -- else RQ's own cleanup has come first
      return lease(job, queue, begun and (f[2] or '?') or '')
    end
  end
  while true do
    local job = redis.call('LINDEX', list, 0)
    local f = job and redis.call('HMGET', R .. ':job:' .. job, 'data', 'flow_run', 'status')
    if not job or f[2] then break end -- a step is claim_job's
    if f[1] and not OVER[f[3]] then
      redis.call('LMOVE', list, hands, 'LEFT', 'RIGHT')
      return lease(job, queue, '')
    end
    redis.call('LPOP', list) -- deleted, or delivered twice
  end
end
