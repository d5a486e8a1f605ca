#!lua
--#include clock join
-- join_events: from now on events are for this app, too.
-- KEYS   1 {P}:events   and those of the library
-- ARGV   1 P  2 R  3 app
-- reply  1 joined | 0 was there already
return join(ARGV[3])
