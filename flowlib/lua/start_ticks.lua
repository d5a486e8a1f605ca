#!lua
--#include clock run metrics job queue cancel_on start
-- start_ticks: ticks of cron schedules start their runs, or are passed over; either is decided once and for all.
-- A decision holds only for where the schedule was when it was made: of workers that come to the same, one is heard.
-- KEYS   1 {P}:cron:{app}   and those of the libraries
-- ARGV   1 P  2 R  3 app  4 the decisions, packed: {schedule {fn}|{expression} {zone}, function, decided up to, tick ms,
--        how many ticks it passes over, 1 if what a pause holds back is passed over, 1 if an unfinished run of cron is
--        minded (2: and the tick then passed over), its run as `start` takes it, or nothing}
-- reply  for each in turn the run that it has started, or '': passed over, held back, or decided before
local app, cron, replies = ARGV[3], KEYS[1], {}

-- Of the other runs that cron has started, those that have not ended.
local function unfinished(fn, this)
  local left = {}
  for run in string.gmatch(redis.call('HGET', cron, 'runs|' .. fn) or '', '%S+') do
    if run ~= this and redis.call('HGET', run_key(run), 'status') == 'running' then left[#left + 1] = run end
  end
  return left
end

local function decide(schedule, fn, since, tick, missed, gives_way, minds, run)
  local upto = redis.call('HGET', cron, 'upto|' .. schedule)
  if upto ~= since then return '' end
  local paused = redis.call('HEXISTS', cron, 'paused|' .. fn) == 1
  if paused and gives_way == 0 then return '' end
  redis.call('HSET', cron, 'upto|' .. schedule, tick)
  if missed > 0 then later('ticks|' .. fn .. '|' .. (paused and 'paused' or 'missed') .. '|', missed) end
  if not run then return '' end
  if paused then
    later('ticks|' .. fn .. '|paused|')
    return ''
  end
  local left = minds > 0 and unfinished(fn, run[6]) or {}
  if minds == 2 and #left > 0 then
    later('ticks|' .. fn .. '|overlapping|')
    return ''
  end
  local begun = start(app, unpack(run, 1, 15))
  redis.call('HSET', cron, 'last|' .. schedule, tick)
  if begun[1] == 0 then return '' end -- another schedule of the function ticks at the same time
  later('ticks|' .. fn .. '|started|')
  if minds > 0 then
    left[#left + 1] = begun[2]
    redis.call('HSET', cron, 'runs|' .. fn, table.concat(left, ' '))
  end
  return begun[2]
end

for _, each in ipairs(cmsgpack.unpack(ARGV[4])) do replies[#replies + 1] = decide(unpack(each)) end
count_all(app)
return replies
