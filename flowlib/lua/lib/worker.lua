-- Whether a worker is there, by RQ's books: one that leaves in good order says so, that of a dead one expires.
-- KEYS   {R}:worker:{w}
local function is_gone(worker)
  local record = R .. ':worker:' .. worker
  return redis.call('EXISTS', record) == 0 or redis.call('HEXISTS', record, 'death') == 1
end
