-- Ordinary RQ jobs, those of no run, while a worker of ours has them: RQ's books of an execution, and the lease beside them.
-- KEYS   {P}:ordinary:{q} {R}:job:{job} {R}:wip:{q} {R}:execution:{job}:{exec} {R}:executions:{job}
local HEARTBEAT = 90 -- seconds after which RQ takes a job without one for abandoned, as with its own workers

-- A lease is named `rq!queue!job:execution` to whoever renews leases of any kind.
local function renew_ordinary(lease, until_ms)
  local queue, job, exec = string.match(lease, '^rq!(.*)!([^!:]+):([^!:]+)$')
  local composite, seconds = job .. ':' .. exec, math.floor(NOW / 1000)
  if not redis.call('ZSCORE', P .. ':ordinary:' .. queue, composite) then return false end
  redis.call('ZADD', P .. ':ordinary:' .. queue, until_ms, composite)
  redis.call('ZADD', R .. ':wip:' .. queue, 'XX', seconds + HEARTBEAT, composite)
  redis.call('ZADD', R .. ':executions:' .. job, 'XX', seconds + HEARTBEAT + 60, exec)
  redis.call('EXPIRE', R .. ':executions:' .. job, HEARTBEAT + 60)
  if redis.call('EXPIRE', R .. ':execution:' .. composite, HEARTBEAT) == 1 then
    redis.call('HSET', R .. ':execution:' .. composite, 'last_heartbeat', NOW / 1000)
  end
  if redis.call('HEXISTS', R .. ':job:' .. job, 'data') == 1 then
    redis.call('HSET', R .. ':job:' .. job, 'last_heartbeat', iso(NOW))
  end
  return true
end
