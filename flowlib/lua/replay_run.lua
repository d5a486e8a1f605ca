#!lua
--#include clock run metrics job queue cancel_on start
-- replay_run: a new run of the same event as another's, with memos of that run, or ones that are given; each of the
-- two runs tells of the other. That run itself goes on, or stays ended, as it was (I6).
-- KEYS   1 {P}:leases   and {P}:memo:{run}, those of the libraries
-- ARGV   1 P  2 R  3 the run that there is  4 the rest, packed: {new run, its first job as put_job takes it, memos that
--        it begins with: {key, memo, or '' for that of the other run, history entry} each}
-- reply  'replayed' | 'unknown' | 'changed' (a memo that was to be kept is not there any more: look again)
local origin, run, spec, memos = ARGV[3], unpack(cmsgpack.unpack(ARGV[4]))
if redis.call('EXISTS', run_key(run)) == 1 then return 'replayed' end -- its reply was lost
local r = redis.call('HMGET', run_key(origin), 'app', 'function', 'event_id', 'event_name', 'event_ts', 'data', 'retention',
  'location', 'created', 'ends_by', 'replays', 'began', 'cancels', 'meta', 'undoes', 'untold')
if not r[1] then return 'unknown' end
for _, each in ipairs(memos) do
  if each[2] == '' then each[2] = redis.call('HGET', P .. ':memo:' .. origin, each[1]) end
  if not each[2] then return 'changed' end
end
local app, fn, event, name, ts, data, retention, location = unpack(r, 1, 8)
local run_ms = r[10] and r[10] - (r[12] or r[9]) or 0
begin_run(app, fn, event, name, ts, data, run, retention, location, spec, 0, run_ms,
  {event = name, id = event, replay_of = origin}, 'replay_of', origin, 'meta', r[14] or '')
if r[13] then expect_again(app, run, r[13]) end
if r[15] then redis.call('HSET', run_key(run), 'undoes', 1) end
if r[16] then redis.call('HSET', run_key(run), 'untold', 1) end
local bytes, values = 0, 0
for _, each in ipairs(memos) do
  redis.call('HSET', P .. ':memo:' .. run, each[1], each[2])
  bytes = bytes + #each[2]
  if string.sub(each[1], 1, 1) == '=' then values = values + 1 end
  note_told(run, each[3])
end
for _, step in ipairs(redis.call('LRANGE', order_key(origin), 0, -1)) do
  if redis.call('HEXISTS', P .. ':memo:' .. run, step) == 1 then
    redis.call('RPUSH', order_key(run), step)
    redis.call('HSETNX', run_key(run), 'branches', 0)
  end
end
redis.call('HSET', run_key(run), 'bytes', bytes, 'values', values)
redis.call('HSET', run_key(origin), 'replays', (r[11] and r[11] .. ' ' or '') .. run)
count_all(app)
return 'replayed'
