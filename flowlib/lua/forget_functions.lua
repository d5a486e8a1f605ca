#!lua flags=allow-oom
--#include clock known
-- forget_functions: what no worker of the app knows any more, as a minute after a deployment.
-- KEYS   1 {P}:apps   and those of the library
-- ARGV   1 P  2 R  3 app
-- reply  1
forget_unknown(ARGV[3])
return 1
