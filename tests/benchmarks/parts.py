"""What is measured: the parts, which systems each is for, and how its figures are shown. Measures and shows nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.benchmarks import backlog, growth, latency, memory, scaling, sending, steps, timers, wide
from tests.benchmarks.roster import FLOWLIB, SYSTEMS, System

MORE, LESS = "more", "less"  # is better


@dataclass(frozen=True)
class Column:
    """One figure; where more or less of it is better, each system also shows how many times as good flowlib is."""

    figure: str
    heading: str
    better: str = ""


@dataclass(frozen=True)
class Table:
    """`plain`: the medians will do."""

    title: str
    columns: tuple[Column, ...]
    note: str = ""
    plain: bool = False


@dataclass(frozen=True)
class Part:
    """`rounds`: no more than so many are worth their time."""

    name: str
    measure: Callable[[System, float], dict[str, float]]
    systems: tuple[System, ...]
    tables: tuple[Table, ...]
    rounds: int = 3


def _with_a_producer_of_their_own() -> Iterable[System]:
    return {(system.package, system.store): system for system in reversed(SYSTEMS)}.values()


PARTS: tuple[Part, ...] = (
    Part(
        "steps", steps.measure, SYSTEMS,
        (
            Table(
                "Chains of ten no-op steps, steps per second",
                (Column("steps_1", "1 worker process", MORE), Column("steps_2", "2 worker processes", MORE)),
                "A backlog, sent before the workers start; from the first step's body to the last. All share two cores "
                "with the server, if the machine has no more.",
            ),
            Table(
                "What it takes of Redis",
                (
                    Column("commands", "commands\nper step"), Column("round_trips", "round trips\nper step"),
                    Column("server_us", "server's CPU\nµs per step"), Column("bytes", "bytes per\nfinished run"),
                    Column("bytes_kept", f"after\n{steps.SHORT_LIVED} s"),
                ),
                "Medians. Commands: also those that scripts call. CPU: of the whole server process, its sockets and AOF too.",
                plain=True,
            ),
        ),
    ),
    Part(
        "latency", latency.measure, SYSTEMS,
        (
            Table(
                "One run on an idle worker, ms",
                (
                    Column("run_p50", "ten steps: p50", LESS), Column("run_p99", "p99", LESS),
                    Column("start_p50", "first step: p50", LESS), Column("start_p99", "p99", LESS),
                ),
                "From the call that sends it to the body of step 10, and of step 1; one after the other.",
            ),
        ),
    ),
    Part(
        "timers", timers.measure, tuple(system for system in SYSTEMS if system.naps is not None),
        (
            Table(
                "Runs that begin at a time: ms late",
                (
                    Column("one_p50", "one by one: p50"), Column("one_p99", "p99"), Column("one_min", "earliest"),
                    Column("crowd", "a crowd\nof"), Column("second_p99", "in one\nsecond: p99"),
                    Column("instant_p99", "at one\ninstant: p99"),
                ),
                "From the due time to the step's body. The crowd's due times are spread evenly over that second, or all "
                "the same; there is none where a worker makes too few steps in a second.",
            ),
        ),
        rounds=2,
    ),
    Part(
        "sending", sending.measure, tuple(s for s in SYSTEMS if s in _with_a_producer_of_their_own()),
        (
            Table(
                "Runs handed in by one producer, per second",
                (Column("one", "a call for each", MORE), Column("together", "one call for 500", MORE)),
                "While no worker runs. For flowlib an event, which a worker then turns into a run.",
            ),
        ),
    ),
    Part(
        "growth", growth.measure, (FLOWLIB,),
        (
            Table(
                "A run of many steps beside runs of ten, µs per step",
                (
                    Column("short", "in place, runs of ten"), Column("long", "in place, long runs"),
                    Column("steps_of_long", "  steps of those"), Column("ratio", "  ratio"),
                    Column("moving_short", "changing workers at each step, runs of ten"),
                    Column("moving_long", "changing workers at each step, long runs"),
                    Column("moving_ratio", "  ratio"),
                    Column("moving_to_in_place", "  ratio to runs of ten in place"),
                ),
                "In place: one worker. Changing workers: two, with --budget 0, so that every step goes through the queue.",
            ),
        ),
        rounds=1,
    ),
    Part(
        "wide", wide.measure, (FLOWLIB,),
        (
            Table(
                "Maps: steps side by side, µs per item",
                (
                    Column("small_1", f"one worker, maps of {wide.SMALL}"), Column("large_1", "one worker, large maps"),
                    Column("items_of_large", "  items of those"), Column("ratio_1", "  ratio"),
                    Column("small_2", f"two workers, maps of {wide.SMALL}"), Column("large_2", "two workers, large maps"),
                    Column("ratio_2", "  ratio"), Column("bytes", "bytes of Redis per item, just finished"),
                    Column("bytes_kept", f"  after {steps.SHORT_LIVED} s, until its retention is over"),
                ),
                "Each item is a job of its own, which any worker may take; at most 100 of a run are open at a time.",
            ),
        ),
        rounds=1,
    ),
    Part(
        "backlog", backlog.measure, (FLOWLIB,),
        (
            Table(
                "Many waiting and sleeping runs",
                (
                    Column("waiting_bytes", "bytes of Redis for each run that waits"), Column("waiting", "  so many do"),
                    Column("claim_slowdown", "  and claims are slower by the factor"),
                    Column("claim_slowdown_least", f"    the least of {backlog.TURNS}"),
                    Column("claim_slowdown_most", "    the most"),
                    Column("sleeping_bytes", "bytes of Redis for each run that sleeps"), Column("sleeping", "  so many do"),
                    Column("sleeping_bytes_second_half", "  bytes for each of the second half"),
                    Column("many_sleeping_gb", f"  GB for {backlog.MANY:,} of them, extrapolated"),
                    Column("late_p50", "  ms that others beside them wake up late: p50"), Column("late_p99", "    p99"),
                ),
                "The million is not run: so many as are said above are, and bytes grow evenly.",
            ),
        ),
        rounds=1,
    ),
    Part(
        "memory", memory.measure, (FLOWLIB,),
        (
            Table(
                "Resident memory of one worker",
                (
                    Column("growth_mb", f"growth, MB per {memory.PER:,} steps"),
                    Column("many_mb", f"  over {memory.MANY:,} steps, extrapolated"),
                    Column("steps", "steps that were run"), Column("warm_mb", f"  MB after {memory.WARM_UP:.0%} of them"),
                    Column("end_mb", "  MB at the end"),
                ),
                "The growth is the slope of a line through 30 or so readings after the warm-up.",
            ),
        ),
        rounds=1,
    ),
    Part(
        "scaling", scaling.measure, (FLOWLIB,),
        (
            Table(
                "What a step takes, of a run of ten, in place",
                (
                    Column("server_us", "server: µs of CPU"), Column("worker_us", "worker: µs of CPU"),
                    Column("bytes_in", "bytes sent to the server"), Column("bytes_out", "bytes received from it"),
                    Column("aof_bytes", "bytes of its append-only file"),
                    Column("connections", "connections of a worker process with one queue"),
                    Column("idle_trips", "round trips a second of a worker that is idle"),
                    Column("idle_us", "server: µs of CPU per idle worker, at each job that comes"),
                    Column("finished_bytes", "bytes of memory of a run, just finished"),
                    Column("kept_bytes", "  later, until its retention is over"),
                ),
                "A step has its share of its run's start and end.",
            ),
            Table(
                f"{scaling.MANY:,} steps a second, calculated",
                (
                    Column("servers", f"servers, each {scaling.LOAD:.0%} busy"),
                    Column("worker_processes", f"worker processes, each {scaling.LOAD:.0%} busy with flowlib's own work"),
                    Column("gigabits", "gigabits a second between them"),
                    Column("aof_gb", "GB a second of append-only files"),
                    Column("minute_gb", "GB of memory for what RQ keeps for a minute"),
                    Column("hour_gb", "GB of memory for finished runs, per hour of retention"),
                ),
            ),
        ),
        rounds=1,
    ),
)  # fmt: skip
