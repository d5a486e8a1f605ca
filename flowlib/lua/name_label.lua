#!lua flags=allow-oom
--#include clock run metrics
-- name_label: the metrics label of a step: its own, or `_other` once its function has a hundred. Asked once per process.
-- KEYS   1 {P}:metrics:{app}
-- ARGV   1 P  2 R  3 app  4 function  5 label
-- reply  the label
return step_label(ARGV[3], ARGV[4], ARGV[5])
