#!lua
--#include clock run metrics job queue wait cancel_on tell children branches finish undo cancel start known
-- dispatch_events: events start what they trigger in this app, reach the runs that wait for them, cancel those that are to be
-- cancelled by them, and are acknowledged, all or nothing (I5); or handed over, if only other workers know some function on them.
-- An event that comes again starts nothing again; nor does it reach a wait again, because that is over, or one that was
-- registered later.
-- KEYS   1 {P}:events   and {P}:refused:{app} {P}:settled:{app}, those of the libraries
-- ARGV   1 P  2 R  3 app  4 the events, packed: {stream id, name for the metrics, its runs as `start` takes them, name, id,
--        its digest by each list of fields that waits on its name are known to be matched by ('': it has not all of them), memo,
--        {function, why} of those that it does not start because a condition raised, 1 if events of its name may cancel runs,
--        {functions that were asked, a line each, names under which others may be subscribed, …}}
-- reply  for each run in turn {1, run} started; {0, run} this event has started that before; {2, stream id, name,
--        lists of fields, if there are new ones} for an event that is to come again: with its digests by these, or because more
--        wait for it than one script may hold up everybody else for; {3, stream id} for one that is to come again with what
--        there is since that may cancel its runs: such events were settled before it
local app, replies, live, held, at_most = ARGV[3], {}, {}, {}, 100

-- Lists of fields by which waits on this name are matched now: a run that has begun in this very script may add one.
local function fields_of(name)
  live[name] = live[name] or redis.call('HKEYS', fields_key(app, name))
  return live[name]
end

-- Are there waits on its name that it cannot be matched against yet?
local function unknown_fields(event)
  local digests = event[6]
  for _, fields in ipairs(fields_of(event[4])) do
    if not digests[fields] then return true end
  end
end

-- Runs that have begun before the event, to end with it; how many more it may reach, or nil: there are more.
local function cancel_all(id, name, event_id, digest)
  local key, left, beside, page = cancels_key(app, name, digest), at_most, 0, 100
  repeat
    local found = redis.call('ZRANGEBYSCORE', key, '-inf', string.match(id, '^%d+'), 'LIMIT', beside, page)
    for _, each in ipairs(found) do
      local run, since = string.match(each, '^(.-)|(.*)$')
      if not comes_after(id, since) then
        beside = beside + 1 -- of the same millisecond, and after it
      elseif left == 0 then
        return nil
      else
        left = left - 1
        stop_run(run, string.format('event %s (%s)', name, event_id))
        redis.call('ZREM', key, each) -- of a run whose record somebody has deleted
      end
    end
  until #found < page
  return left
end

-- Was an event settled that may cancel a run of this one, and that nobody has looked at? Dispatchers are many. Of a run for
-- which one was found nobody looks any further, however many were settled behind that.
local function is_overtaken(event, before)
  for _, run in ipairs(event[3]) do
    local cancels = run[13] and run[13][3] == '' and not is_line(before, run[1]) and run[13] or {}
    for i = 4, #cancels do
      local last = redis.call('HGET', P .. ':settled:' .. app, cancels[i][1])
      if last and comes_after(last, cancels[2]) then return true end
    end
  end
end

local function settle(event)
  local key, name = P .. ':settled:' .. app, event[4]
  local last = redis.call('HGET', key, name)
  if not last or comes_after(event[1], last) then redis.call('HSET', key, name, event[1]) end
end

-- A function that was asked before is not started again, however short a time its runs are kept for.
local function start_all(event, before)
  for _, run in ipairs(event[3]) do
    local invoked = run[16]
    local wanted = not is_line(before, run[1]) and (not invoked or invoked[2] == 1 or is_awaited(invoked[1], run[6]))
    local reply = wanted and start(app, unpack(run, 1, 16)) or {0, run[6]}
    replies[#replies + 1] = reply
    local by = run[13] and run[13][3] or ''
    if reply[1] == 1 and by ~= '' then stop_run(reply[2], by) end
    for i = 4, #(run[13] or {}) do live[run[13][i][1]] = nil end -- events of that name are matched by more fields now
  end
end

-- False when it has more to wake.
local function wake(event)
  local id, name, event_id, digests, memo = event[1], event[4], event[5], event[6], event[7]
  for _, fields in ipairs(fields_of(name)) do
    if digests[fields] ~= '' then
      local left = deliver_to_all(app, name, digests[fields], id, memo, event_id, at_most)
      at_most = left or 0
      left = left and cancel_all(id, name, event_id, digests[fields])
      at_most = left or 0
      if not left then return false end
    end
  end
  return true
end

-- Or hand it over. False: another dispatcher has settled it.
local function acknowledge(event, before)
  local id, asked = event[1], event[10][1]
  local fn, place = unasked(app, before, unpack(event[10]))
  if fn then return hand_over(app, id, heir_of(app, 'flow_on', place .. ' ' .. fn), before, asked) end
  if redis.call('XACK', KEYS[1], app, id) == 0 then return false end
  forget_asked(app, id)
  later('events_received|||' .. event[2])
  return true
end

-- An invocation of a function that this worker does not know, but others do: those know how it is declared.
local function is_of_others(event)
  local run = event[3][1]
  return run and run[16] and run[16][3] == 1 and redis.call('HEXISTS', P .. ':functions:' .. app, run[1]) == 1
end

local function refuse(event, fn, why)
  redis.call('XADD', P .. ':refused:' .. app, 'MAXLEN', 100, '*', 'event', event[4], 'id', event[5], 'function', fn, 'why', why)
  later('conditions_failed|' .. fn .. '||')
end

for _, event in ipairs(cmsgpack.unpack(ARGV[4])) do
  local name, before = event[4], asked_before(app, event[1])
  if is_of_others(event) then
    hand_over(app, event[1], heir_of(app, 'flow_functions', event[3][1][1]), before, '')
  elseif is_overtaken(event, before) then
    replies[#replies + 1] = {3, event[1]}
  elseif held[name] or unknown_fields(event) or not wake(event) then
    held[name] = true -- those after it wait, too: each run is woken by the first
    replies[#replies + 1] = {2, event[1], name, unpack(fields_of(name))}
  else
    start_all(event, before)
    if event[9] == 1 then settle(event) end
    if acknowledge(event, before) then
      for _, refused in ipairs(event[8]) do
        if not is_line(before, refused[1]) then refuse(event, unpack(refused)) end
      end
    end
  end
end
count_all(app)
return replies
