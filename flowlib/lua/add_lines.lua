#!lua
--#include clock run
-- add_lines: log lines of a step that is still running, so that they can be followed live.
-- KEYS   1 {P}:leases (names the slot)   and {P}:history:{run} {P}:run:{run}
-- ARGV   1 P  2 R  3 worker  4 run  5 log lines
-- reply  1 | 0 there is no such run any more
if redis.call('EXISTS', run_key(ARGV[4])) == 0 then return 0 end
note_lines(ARGV[4], ARGV[3], ARGV[5])
return 1
