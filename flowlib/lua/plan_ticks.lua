#!lua flags=allow-oom
--#include clock worker
-- plan_ticks: up to where each cron schedule of an app is decided, and what time it is.
-- The worker that has started last says which schedules there are: those that it does not know are forgotten with their past,
-- so that a changed one does not tick in two ways while old workers are about; when it is dead, the next one that misses its own.
-- A schedule that is new is decided up to now: its first tick is the next one.
-- KEYS   1 {P}:cron:{app}   and those of the library
-- ARGV   1 P  2 R  3 worker  4 1 if it is starting, else 0  5.. its schedules: {fn}|{expression} {zone}
-- reply  {ms, the fields of the hash and their values in turn}
local cron, worker = KEYS[1], ARGV[3]

local function may_say()
  if ARGV[4] == '1' then return true end
  local says = redis.call('HGET', cron, 'declared')
  return not says or says == worker or is_gone(says)
end

local known, missing = {}, false
for i = 5, #ARGV do
  known[ARGV[i]] = true
  missing = missing or redis.call('HEXISTS', cron, 'upto|' .. ARGV[i]) == 0
end
if (missing or (ARGV[4] == '1' and redis.call('EXISTS', cron) == 1)) and may_say() then
  for _, field in ipairs(redis.call('HKEYS', cron)) do
    local kind, schedule = string.match(field, '^(%a+)|(.+)$')
    if (kind == 'upto' or kind == 'last') and not known[schedule] then redis.call('HDEL', cron, field) end
  end
  for schedule in pairs(known) do redis.call('HSETNX', cron, 'upto|' .. schedule, string.format('%d', NOW)) end
  redis.call('HSET', cron, 'declared', worker)
end
return {string.format('%.3f', NOW), redis.call('HGETALL', cron)}
