-- Runs that wait for an event. A wait is registered while its job is on no worker: whoever takes the job at its time, or
-- cancels the run, ends the wait, and so does the event. All that is registered can be delivered to, and ends in one way.
-- An event finds its waits by one look per list of fields that any wait on its name is matched by, however many wait.
-- Needs lib/run.lua, lib/metrics.lua, lib/job.lua, lib/queue.lua.
-- KEYS   {P}:events {P}:memo:{run} {P}:waits:{app} {P}:fields:{app}:{event} {P}:waiters:{app}:{event}:{digest} {P}:listeners
local function fields_key(app, name) return P .. ':fields:' .. app .. ':' .. name end
local function waiters_key(app, name, digest) return P .. ':waiters:' .. app .. ':' .. name .. ':' .. digest end

-- The stream's last event, and how many it has had so far
local function last_event()
  if redis.call('EXISTS', P .. ':events') == 0 then return '0-0', 0 end
  local told, about = redis.call('XINFO', 'STREAM', P .. ':events'), {}
  for i = 1, #told, 2 do about[told[i]] = told[i + 1] end
  return about['last-generated-id'], about['entries-added']
end

local function comes_after(id, other)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)%-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(seq) > tonumber(other_seq)
end

-- Has an event of this name come since that one, which was looked at? Yes, too, when there are many of any name.
local function is_behind(name, looked)
  if not comes_after(last_event(), looked) then return false end
  local entries = redis.call('XRANGE', P .. ':events', '(' .. looked, '+', 'COUNT', 100)
  for _, entry in ipairs(entries) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'name' and entry[2][i + 1] == name then return true end
    end
  end
  return #entries == 100
end

-- How a run has ended is told only where somebody listens for it.
local function listen(name, by)
  if string.sub(name, 1, 9) ~= 'flow/run.' then return end
  local waits = 'waits|' .. name
  if redis.call('HINCRBY', P .. ':listeners', waits, by) <= 0 then redis.call('HDEL', P .. ':listeners', waits) end
end

-- Waits of one digest are in the order in which they came, so those that an event is too old for are the last.
-- With `asks`, an event only wakes the run, whose function says whether it is the one.
local function register_wait(app, job, name, fields, digest, asks)
  local last, added = last_event()
  redis.call('HSET', P .. ':waits:' .. app, job, cmsgpack.pack({name, fields, digest, last, asks and 1 or 0}))
  redis.call('HINCRBY', fields_key(app, name), fields, 1)
  redis.call('ZADD', waiters_key(app, name, digest), added, job)
  listen(name, 1)
end

-- Was it one that asks?
local function forget_wait(app, job)
  local raw = redis.call('HGET', P .. ':waits:' .. app, job)
  if not raw then return false end
  local name, fields, digest, _, asks = unpack(cmsgpack.unpack(raw))
  redis.call('HDEL', P .. ':waits:' .. app, job)
  redis.call('ZREM', waiters_key(app, name, digest), job)
  if redis.call('HINCRBY', fields_key(app, name), fields, -1) <= 0 then
    redis.call('HDEL', fields_key(app, name), fields)
  end
  listen(name, -1)
  return asks == 1
end

-- The event is what the job's step has waited for: its memo, if nothing was first, and the job is due now.
local function deliver_event(app, job, memo, event)
  local run = run_of(job)
  local place = place_of_job(job)
  local r = redis.call('HMGET', run_key(run), 'status', 'function')
  local p = redis.call('HMGET', place, 'job', 'step', 'state', 'queue', 'kind')
  local fn, step, queue = r[2], p[2], p[4]
  local asks = forget_wait(app, job)
  if r[1] ~= 'running' or p[1] ~= job then return end
  if not asks then
    if redis.call('HSETNX', P .. ':memo:' .. run, step, memo) == 0 then return end
    redis.call('HINCRBY', run_key(run), 'bytes', #memo)
    if redis.call('HEXISTS', run_key(run), 'branches') == 1 then redis.call('RPUSH', order_key(run), step) end
    count(app, 'memo_bytes|' .. fn .. '||', #memo)
    local failed = string.sub(memo, 1, 1) == 'e'
    note(run, 'recorded', step, 1, '', {bytes = #memo, outcome = failed and 'failed' or 'ok',
      kind = p[5], event = event, error = failed and cmsgpack.unpack(string.sub(memo, 2)) or nil})
  end
  redis.call('HSET', place, 'due', '')
  if redis.call('HGET', job_key(job), 'status') == 'scheduled' then -- else its timer has just fired
    unschedule_job(job, queue)
    queue_job(job, queue, true)
    note(run, 'queued', step, 1, '', {job = job, queue = queue, woken = true})
    set_state(place, app, fn, p[3], 'queued')
  end
end

-- To whoever waits for exactly this: the end of a child, the settling of a promise.
local function deliver_to_each(app, name, digest, memo, event)
  for _, job in ipairs(redis.call('ZRANGE', waiters_key(app, name, digest), 0, -1)) do
    deliver_event(app, job, memo, event)
  end
end

-- To all that wait for it with this digest, as far as `at_most` goes; how many more it may go to, or nil: it was too far.
local function deliver_to_all(app, name, digest, id, memo, event, at_most)
  local waits = redis.call('ZRANGE', waiters_key(app, name, digest), 0, at_most)
  local found = 0
  for _, job in ipairs(waits) do
    local last = cmsgpack.unpack(redis.call('HGET', P .. ':waits:' .. app, job))[4]
    if not comes_after(id, last) then break end
    found = found + 1
  end
  for i = math.min(found, at_most), 1, -1 do deliver_event(app, waits[i], memo, event) end -- the first to the very front
  if found > at_most then return nil end
  return at_most - found
end
