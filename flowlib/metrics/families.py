"""What is reported: every metric's name, type, labels and meaning, and which counter of the scripts it comes from.

Pure. No label ever holds an id of a run, an event or a worker: the number of series stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from flowlib.store import STEP_EDGES

Labels = tuple[str, ...]

# Those of lib/run.lua; a test holds them together.
WAIT_EDGES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
RUN_EDGES = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)

OUTCOMES = ("ok", "retry", "failed", "timeout", "lost")
TICKS = ("started", "missed", "overlapping", "paused")
CAUSES = ("lost_worker", "orphan", "timeout")


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric. A histogram's values are counts by the upper edge of their bucket, and `sum`, in microseconds."""

    name: str
    labels: Labels
    help: str
    edges: tuple[float, ...] = ()

    def metric(self, values: Mapping[Labels, float]) -> Metric:
        """The family with these samples, by label values; those of a histogram have the edge behind them."""
        if self.edges:
            return self._histogram(values)
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        metric = kind(self.name, self.help, labels=self.labels)
        for labels, value in values.items():
            metric.add_metric(labels, value)
        return metric

    def _histogram(self, values: Mapping[Labels, float]) -> Metric:
        series: dict[Labels, dict[str, float]] = {}
        for key, count in values.items():
            series.setdefault(key[:-1], {})[key[-1]] = count
        metric = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, counts in series.items():
            total = counts.pop("sum", 0) / 1_000_000
            by_edge = [(float(edge), count) for edge, count in counts.items()]
            up_to = [(edge, sum(count for at, count in by_edge if at <= edge)) for edge in (*self.edges, inf)]
            buckets = [("+Inf" if edge == inf else str(float(edge)), count) for edge, count in up_to]
            metric.add_metric(labels, buckets, total)
        return metric


EVENTS_RECEIVED = Family(
    "flow_events_received_total",
    ("app", "event"),
    "Events that the app has taken from the stream, by name; those that no function of it is triggered by as _other.",
)
RUNS_STARTED = Family("flow_runs_started_total", ("app", "function"), "Runs started.")
RUNS_FINISHED = Family(
    "flow_runs_finished_total", ("app", "function", "status"), "Runs ended: completed, failed or cancelled."
)
RUNS_RETRIED = Family(
    "flow_runs_retried_total", ("app", "function"), "Failed runs that somebody has put back, in place."
)
RUN_DURATION = Family(
    "flow_run_duration_seconds",
    ("app", "function", "status"),
    "Time from a run's start to its end, sleeps and waits included.",
    RUN_EDGES,
)
CRON_TICKS = Family(
    "flow_cron_ticks_total",
    ("app", "function", "outcome"),
    "Ticks of cron schedules: started, missed (nobody was up in time), overlapping (an earlier run was unfinished), paused.",
)
CONDITIONS_FAILED = Family(
    "flow_conditions_failed_total",
    ("app", "function"),
    "Events that started nothing because the function's condition on them (`when=`) raised.",
)
STEP_ATTEMPTS = Family(
    "flow_step_attempts_total",
    ("app", "function", "step", "outcome"),
    "Attempts of steps: ok, retry (failed, another follows), failed (the last one), timeout, lost (its worker died).",
)
STEP_DURATION = Family(
    "flow_step_duration_seconds",
    ("app", "function", "step"),
    "Time that an attempt's body ran, whatever came of it; lost attempts are not in it.",
    STEP_EDGES[:-1],
)
QUEUE_WAIT = Family(
    "flow_step_queue_wait_seconds",
    ("queue",),
    "Time from when a job was due to when a worker took it, of all apps; a step in place waits in no queue.",
    WAIT_EDGES,
)
QUEUE_JOBS = Family(
    "flow_queue_jobs",
    ("queue", "state"),
    "Jobs: queued (due, waiting for a worker), running (on a worker), delayed (asleep, waiting for an event or backing off).",
)
QUEUE_LATENCY = Family(
    "flow_queue_latency_seconds", ("queue",), "How long the oldest job that is due has been waiting; 0 when none is."
)
RUNS_ACTIVE = Family(
    "flow_runs_active",
    ("app", "function", "state"),
    "Unfinished runs: queued, running, sleeping, waiting, retrying, or parked: no worker that came by knows the function.",
)
OLDEST_ACTIVE = Family(
    "flow_run_oldest_active_seconds",
    ("app", "function"),
    "Age of the function's oldest unfinished run, 0 when it has none; absent when 100 runs of the app are older.",
)
WORKERS = Family(
    "flow_workers", ("queue", "state"), "Living workers, RQ's own too: idle or busy. One counts for each of its queues."
)
RECOVERED = Family(
    "flow_recovered_steps_total",
    ("app", "cause"),
    "Steps taken back from a dead worker (lost_worker), found with nothing to move them (orphan), or stopped at their"
    " timeout (timeout).",
)
TIMERS_DUE = Family("flow_timers_due", (), "Sleeps and back-offs whose time has come and that have not been fired yet.")
SCHEDULER_LAG = Family("flow_scheduler_lag_seconds", (), "By how much the first of those is late; 0 when none is due.")
SCHEDULER_TICK = Family(
    "flow_scheduler_last_tick_timestamp_seconds", (), "When a worker last looked for timers that are due."
)
MEMO_BYTES = Family("flow_memo_bytes_total", ("app", "function"), "Bytes of step results written.")
REDIS_UP = Family("flow_redis_up", (), "1 when Redis answers; 0 when it does not, and then nothing else is reported.")
MEMORY_USED = Family(
    "flow_redis_memory_used_ratio", (), "Redis' used memory over its maxmemory; 0 when it has no bound."
)
CONFIG_OK = Family(
    "flow_redis_config_ok",
    ("check",),
    "1 when Redis evicts nothing (noeviction) and survives a restart (aof); absent where CONFIG is refused.",
)
BUILD_INFO = Family(
    "flow_build_info", ("version", "rq", "redis"), "Versions of flowlib, of RQ and of the server; always 1."
)
SCRAPE_SECONDS = Family("flow_exporter_scrape_seconds", (), "How long it took to read all this from Redis.")

FAMILIES = tuple(family for family in globals().copy().values() if isinstance(family, Family))
NAMES = tuple(family.name for family in FAMILIES)

# Fields of `{p}:metrics:{app}` are `counter|a|x|b`: the family of each counter, and its labels from the app, a, x and b.
COUNTED: Mapping[str, tuple[Family, Callable[[str, str, str, str], Labels]]] = {
    "events_received": (EVENTS_RECEIVED, lambda app, _, __, event: (app, event)),
    "runs_started": (RUNS_STARTED, lambda app, function, _, __: (app, function)),
    "runs_finished": (RUNS_FINISHED, lambda app, function, status, _: (app, function, status)),
    "ticks": (CRON_TICKS, lambda app, function, outcome, _: (app, function, outcome)),
    "runs_retried": (RUNS_RETRIED, lambda app, function, _, __: (app, function)),
    "conditions_failed": (CONDITIONS_FAILED, lambda app, function, _, __: (app, function)),
    "run_seconds": (RUN_DURATION, lambda app, function, edge, status: (app, function, status, edge)),
    "attempts": (STEP_ATTEMPTS, lambda app, function, outcome, step: (app, function, step, outcome.partition(":")[0])),
    "step_seconds": (STEP_DURATION, lambda app, function, edge, step: (app, function, step, edge)),
    "queue_wait": (QUEUE_WAIT, lambda _, queue, edge, __: (queue, edge)),
    "active": (RUNS_ACTIVE, lambda app, function, state, _: (app, function, state)),
    "recovered": (RECOVERED, lambda app, cause, _, __: (app, cause)),
    "memo_bytes": (MEMO_BYTES, lambda app, function, _, __: (app, function)),
}
