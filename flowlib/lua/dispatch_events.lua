#!lua
--#include clock run metrics job queue start wait
-- dispatch_events: events start what they trigger in this app, reach the runs that wait for them, and are acknowledged, all
-- or nothing (I5).
-- An event that comes again starts nothing again; nor does it reach a wait again, because that is over, or one that was
-- registered later.
-- KEYS   1 {P}:events   and {P}:refused:{app}, those of the libraries
-- ARGV   1 P  2 R  3 app  4 the events, packed: {stream id, name for the metrics, its runs as `start` takes them, name, id,
--        its digest by each list of fields that waits on its name are known to be matched by ('': it has not all of them), memo,
--        {function, why} of those that it does not start because a condition raised}
-- reply  for each run in turn {1, run} started; {0, run} this event id has started that run before; {2, stream id, name,
--        lists of fields, if there are new ones} for an event that is to come again: with its digests by these, or because more
--        wait for it than one script may hold up everybody else for
local app, replies, live, held, at_most = ARGV[3], {}, {}, {}, 100

-- Are there waits on its name that it cannot be matched against yet?
local function unknown_fields(event)
  local name, digests = event[4], event[6]
  live[name] = live[name] or redis.call('HKEYS', fields_key(app, name))
  for _, fields in ipairs(live[name]) do
    if not digests[fields] then return true end
  end
end

-- False when it has more to wake.
local function wake(event)
  local id, name, event_id, digests, memo = event[1], event[4], event[5], event[6], event[7]
  for _, fields in ipairs(live[name]) do
    if digests[fields] ~= '' then
      local left = deliver_to_all(app, name, digests[fields], id, memo, event_id, at_most)
      at_most = left or 0
      if not left then return false end
    end
  end
  return true
end

local function refuse(event, fn, why)
  redis.call('XADD', P .. ':refused:' .. app, 'MAXLEN', 100, '*', 'event', event[4], 'id', event[5], 'function', fn, 'why', why)
  later('conditions_failed|' .. fn .. '||')
end

for _, event in ipairs(cmsgpack.unpack(ARGV[4])) do
  local name = event[4]
  if held[name] or unknown_fields(event) or not wake(event) then
    held[name] = true -- those after it wait, too: each run is woken by the first
    replies[#replies + 1] = {2, event[1], name, unpack(live[name])}
  else
    for _, run in ipairs(event[3]) do replies[#replies + 1] = start(app, unpack(run)) end
    if redis.call('XACK', KEYS[1], app, event[1]) == 1 then
      later('events_received|||' .. event[2])
      for _, refused in ipairs(event[8]) do refuse(event, unpack(refused)) end
    end
  end
end
count_all(app)
return replies
