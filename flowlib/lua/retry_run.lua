#!lua
--#include clock run metrics job queue cancel_on
-- retry_run: a failed run goes on where it failed, because somebody asks for it: the memo of the step that failed it is
-- dropped, all others stay, and its last job is queued again, with all its attempts. The only way out of an end (I6).
-- KEYS   1 {P}:leases   and {P}:memo|order:{run} {P}:active:{app} {P}:timers, those of the libraries
-- ARGV   1 P  2 R  3 run  4 token of this request: sent again, it gets the same answer  5.. its last job, as put_job takes it
-- reply  {'retried', step that is tried again, or '': the code behind the last one} | {'unknown'} | {its status}
--        | {'moved'} (that is not its last job any more: look again)
local run, token, spec = ARGV[3], ARGV[4], {unpack(ARGV, 5, 13)}
local r = redis.call('HMGET', run_key(run), 'status', 'job', 'queue', 'step', 'app', 'function', 'error', 'created',
  'retried_by', 'retried_step', 'ends_by', 'began', 'cancels')
if not r[1] then return {'unknown'} end
if r[9] == token then return {'retried', r[10]} end
if r[1] ~= 'failed' then return {r[1]} end
if redis.call('HEXISTS', P .. ':memo:' .. run, '=ending:1') == 1 then return {'undone'} end
local job, queue, last, app, fn = unpack(r, 2, 6)
if job ~= spec[1] then return {'moved'} end
local memos = P .. ':memo:' .. run

-- The memo of the error that ended the run: of steps that have failed alike, that of the one that it names, as its last time.
-- Else the function has made another error of it: then its last step, if that has failed. Else no step has.
local function failed_step()
  local error, found, nth = cmsgpack.unpack(r[7]), nil, 0
  local named = 2 ^ 40 -- more than any step is repeated
  local function is_it(memo)
    if string.sub(memo, 1, 1) ~= 'e' then return false end
    local its = cmsgpack.unpack(string.sub(memo, 2)) -- that of a child may name a step of the child's
    return its.type == error.type and its.message == error.message and its.traceback == error.traceback
  end
  local all = redis.call('HGETALL', memos)
  for i = 1, #all, 2 do
    local n, id = string.match(all[i], '^(%d+):(.*)$')
    n = (tonumber(n) or 0) + (id == error.step and named or 0)
    if n > nth and is_it(all[i + 1]) then found, nth = all[i], n end
  end
  if found then return found end
  return string.sub(redis.call('HGET', memos, last) or '', 1, 1) == 'e' and last or nil
end

local failed = failed_step()
local again = failed or (redis.call('HEXISTS', memos, last) == 0 and last) or ''
if failed then
  redis.call('HINCRBY', run_key(run), 'bytes', -#redis.call('HGET', memos, failed))
  redis.call('HDEL', memos, failed)
  redis.call('LREM', P .. ':order:' .. run, 0, failed)
  local settled = redis.call('HGET', memos, '=settled:' .. failed)
  if settled then -- a promise that was rejected may be settled anew
    redis.call('HDEL', memos, '=settled:' .. failed)
    redis.call('HINCRBY', run_key(run), 'bytes', -#settled)
    redis.call('HINCRBY', run_key(run), 'values', -1)
  end
end
redis.call('HDEL', run_key(run), 'ended', 'result', 'error', 'asks', 'armed')
redis.call('HSET', run_key(run), 'status', 'running', 'attempt', 1, 'retried_by', token, 'retried_step', again)
redis.call('HINCRBY', run_key(run), 'retries', 1)
for _, kind in ipairs({'run', 'memo', 'history', 'order'}) do redis.call('PERSIST', P .. ':' .. kind .. ':' .. run) end
redis.call('ZADD', P .. ':active:' .. app, r[8], run)
if r[11] then -- it has as long again to come to its end
  local ends_by = NOW + r[11] - (r[12] or r[8])
  redis.call('HSET', run_key(run), 'ends_by', ends_by, 'began', NOW)
  set_timer(run .. '!end', ends_by)
end
if r[13] then expect_again(app, run, r[13]) end
know_queue(queue)
put_job(run, spec, NOW, waiting_fields(spec[8], spec[9]))
forget_end(job, queue)
note(run, 'retried', again, 0, '', {dropped = failed})
queue_job(job, queue, true)
note(run, 'queued', last, 1, '', {job = job, queue = queue})
set_state(run_key(run), app, fn, nil, 'queued')
count(app, 'runs_retried|' .. fn .. '||')
return {'retried', again}
