"""Every Redis key of flowlib in one table: name, type, lifetime, owner. Nothing else names a key but the scripts.

`{p}` is the prefix (`FLOW_KEY_PREFIX`, default `flow`), `{app}` an app's name, `{run}` a run's id. RQ's own keys keep
RQ's names (`RQ_KEY_PREFIX`, default `rq`). For Redis Cluster give both prefixes one hash tag: `{f}:flow` and `{f}:rq`.

| key                        | type   | lives                             | holds |
|----------------------------|--------|-----------------------------------|-------|
| `{p}:events`               | stream | for ever; 24 h, and until read    | all events; one consumer group per app |
| `{p}:apps`                 | set    | for ever, or `flow forget`        | names of the apps that ever had a worker |
| `{p}:queues`               | set    | for ever                          | queues that ever held one of our jobs |
| `{p}:functions:{app}`      | hash   | for ever; those of workers + 60 s | function -> its description (JSON) |
| `{p}:subscribed:{app}`     | hash   | for ever; those of workers + 60 s | event, `noun/*` -> functions on it, a line each |
| `{p}:told:{app}`           | set    | while it has any                  | records of workers that have told what they know |
| `{p}:beginning:{worker}`   | hash   | until it is registered; 60 s      | that of a worker which RQ has not heard of yet |
| `{p}:asked:{app}`          | hash   | until all were asked              | handed-over event -> functions asked so far |
| `{p}:listeners`            | hash   | for ever; those of workers + 60 s | app, or a wait -> which ends of runs it is on |
| `{p}:refused:{app}`        | stream | the last 100, or `flow forget`    | events of which a trigger's condition raised |
| `{p}:cancels:{app}:{event}:{digest}` | zset | while it may end a run   | `run|its event` -> that event's ms |
| `{p}:settled:{app}`        | hash   | for ever, or `flow forget`        | event that cancels runs -> the last one settled |
| `{p}:cron:{app}`           | hash   | for ever, or `flow forget`        | what is decided of each schedule; what is paused |
| `{p}:once:{app}:{fn}:{id}` | string | idempotency window (24 h)         | the run that this event id started |
| `{p}:run:{run}`            | hash   | run + retention (7 days)          | the run's record: the truth |
| `{p}:memo:{run}`           | hash   | run + retention                   | step key -> memo; `=now:1`, `=promise:…`: a value |
| `{p}:order:{run}`          | list   | run + retention                   | steps recorded while others were open, in turn |
| `{p}:open:{run}`           | hash   | while steps are open side by side | step -> its branch, or 0 |
| `{p}:branch:{run}:{n}`     | hash   | while it is open                  | a further place at which the run goes on |
| `{p}:history:{run}`        | list   | run + retention, 10 000 entries   | what happened, in order (msgpack) |
| `{p}:runs:{app}`           | zset   | run + retention                   | run -> started at (ms) |
| `{p}:active:{app}`         | zset   | while the run is unfinished       | run -> started at (ms) |
| `{p}:waits:{app}`          | hash   | while a run waits for something   | job -> event, child or promise (msgpack) |
| `{p}:fields:{app}:{event}` | hash   | while a run waits for it          | fields of `match` (JSON) -> how many waits |
| `{p}:waiters:{app}:{event}:{digest}` | zset | while a run waits for it  | job -> events there had been (`wait.py`) |
| `{p}:parked:{app}:{fn}`    | zset   | while a run's function is unknown | run -> since (ms) |
| `{p}:leases`               | zset   | while a job is on a worker        | `job:execution` -> expires at (ms) |
| `{p}:ordinary:{queue}`     | zset   | while an RQ job is on a worker    | as leases, of jobs that are no run's |
| `{p}:timers`               | zset   | while something has its time    | job, `{run}!start`, `{run}!end` -> due at (ms) |
| `{p}:metrics:{app}`        | hash   | for ever, or `flow forget`        | `counter|function|x|label` -> count |
| `{p}:housekeeper`          | string | 3 s, renewed                      | the worker that fires timers and reaps |
| `{p}:tick`                 | string | for ever                          | when timers were last looked at (ms) |
| `{p}:timers!`, `{p}:ended!{run}` | pub/sub | no key                      | a timer became the next due one; a run ended |

RQ's keys, in the form that RQ 3 gives them; `{q}` is a queue, `{job}` a job's id, `{exec}` that of an execution:

| key                        | type   | lives                             | holds |
|----------------------------|--------|-----------------------------------|-------|
| `{rq}:queues`              | set    | for ever                          | keys of the queues |
| `{rq}:queue:{q}`           | list   | while a job waits in it           | jobs, the next one first |
| `{rq}:job:{job}`           | hash   | its turn + 60 s (failed: 7 days)  | the job |
| `{rq}:results:{job}`       | stream | end + 60 s (failed: 7 days)       | how it ended |
| `{rq}:finished:{q}`        | zset   | as its jobs                       | job -> kept until (s) |
| `{rq}:failed:{q}`          | zset   | as its jobs                       | job -> kept until (s) |
| `{rq}:scheduled:{q}`       | zset   | while a job sleeps or backs off   | job -> due at (s, rounded up) |
| `{rq}:wip:{q}`             | zset   | while a job has run for a moment  | `job:execution` -> a day ahead (s) |
| `{rq}:execution:{job}:{exec}` | hash | while a job has run for a moment | the execution |
| `{rq}:executions:{job}`    | zset   | while a job has run for a moment  | execution -> a day ahead (s) |
| `{rq}:workers`             | set    | while a worker lives              | keys of the workers |
| `{rq}:workers:{q}`         | set    | while a worker lives              | keys of those that listen to the queue |
| `{rq}:worker:{worker}`     | hash   | while it lives, + a minute        | the worker |
| `{rq}:worker:{worker}:executions` | set | while it has one              | `job:execution` |

Fields that we add to RQ's job hash begin with `flow_`; RQ keeps fields that it does not know.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def _flow_prefix() -> str:
    return os.environ.get("FLOW_KEY_PREFIX") or "flow"


def _rq_prefix() -> str:
    return os.environ.get("RQ_KEY_PREFIX") or "rq"


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of the keys that Python reads; those that only scripts touch are in the scripts' headers."""

    prefix: str = field(default_factory=_flow_prefix)
    rq: str = field(default_factory=_rq_prefix)

    @property
    def events(self) -> str:
        return f"{self.prefix}:events"

    @property
    def apps(self) -> str:
        return f"{self.prefix}:apps"

    @property
    def queues(self) -> str:
        return f"{self.prefix}:queues"

    @property
    def leases(self) -> str:
        return f"{self.prefix}:leases"

    @property
    def timers(self) -> str:
        return f"{self.prefix}:timers"

    @property
    def tick(self) -> str:
        return f"{self.prefix}:tick"

    @property
    def housekeeper(self) -> str:
        return f"{self.prefix}:housekeeper"

    @property
    def timers_channel(self) -> str:
        return f"{self.prefix}:timers!"

    def ended_channel(self, run: str) -> str:
        return f"{self.prefix}:ended!{run}"

    def ordinary(self, queue: str) -> str:
        return f"{self.prefix}:ordinary:{queue}"

    @property
    def listeners(self) -> str:
        return f"{self.prefix}:listeners"

    def refused(self, app: str) -> str:
        return f"{self.prefix}:refused:{app}"

    def functions(self, app: str) -> str:
        return f"{self.prefix}:functions:{app}"

    def subscribed(self, app: str) -> str:
        return f"{self.prefix}:subscribed:{app}"

    def asked(self, app: str) -> str:
        return f"{self.prefix}:asked:{app}"

    def cron(self, app: str) -> str:
        return f"{self.prefix}:cron:{app}"

    def once(self, app: str, function: str, event_id: str) -> str:
        return f"{self.prefix}:once:{app}:{function}:{event_id}"

    def run(self, run: str) -> str:
        return f"{self.prefix}:run:{run}"

    def memo(self, run: str) -> str:
        return f"{self.prefix}:memo:{run}"

    def order(self, run: str) -> str:
        return f"{self.prefix}:order:{run}"

    def open(self, run: str) -> str:
        return f"{self.prefix}:open:{run}"

    def branch(self, run: str, branch: str) -> str:
        return f"{self.prefix}:branch:{run}:{branch}"

    def history(self, run: str) -> str:
        return f"{self.prefix}:history:{run}"

    def runs(self, app: str) -> str:
        return f"{self.prefix}:runs:{app}"

    def active(self, app: str) -> str:
        return f"{self.prefix}:active:{app}"

    def metrics(self, app: str) -> str:
        return f"{self.prefix}:metrics:{app}"

    def rq_queue(self, queue: str) -> str:
        return f"{self.rq}:queue:{queue}"

    def rq_scheduled(self, queue: str) -> str:
        return f"{self.rq}:scheduled:{queue}"

    def rq_job(self, job: str) -> str:
        return f"{self.rq}:job:{job}"

    def rq_worker(self, worker: str) -> str:
        return f"{self.rq}:worker:{worker}"

    @property
    def rq_workers(self) -> str:
        return f"{self.rq}:workers"

    @property
    def rq_suspended(self) -> str:
        return f"{self.rq}:suspended"
