"""What a storm has led to: by the ledger, which is outside Redis, and by all that Redis holds.

A step counts as recorded from the time at which its memo was written, by the server's clock, which is everybody's here:
that its body had ended, or that a worker took it for recorded, proves nothing. A body that was started later is wrong,
but for one case that nobody can rule out: a process that is stopped between hearing that it has the lease and the body's
first line starts that body when it goes on, whatever has happened meanwhile. What comes of it is dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from statistics import quantiles
from typing import Any

from flowlib.journal import id_of
from flowlib.model import HistoryEntry, Run
from flowlib.testing import check_invariants

from .fates import Fates
from .ledger import END, RAISED, START, Ledger, Line
from .storm import LEASE, Storm, Struck
from .stormy import STEP, TICKING, run_of

TICK = 0.001  # seconds; the server tells its time in milliseconds


class Verdict:
    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.runs: list[Run] = storm.app.runs.list(limit=None)
        self.lines = Ledger(storm.notes).lines()
        self.histories = {run.id: storm.app.runs.history(run.id) for run in self.runs}
        self.recorded = {
            (run, id_of(entry.step)): entry.at
            for run, history in self.histories.items() for entry in history if entry.kind in ("recorded", "kept")
        }  # fmt: skip
        self.fates = Fates(storm.app, self.runs, self.histories, self.lines, forgetful=storm.forgotten > 0)
        late = [line for line in self.lines if line.word == START and self._is_late(line)]
        self.after_a_pause = [
            line for line in late if any(_excuses(each, line, self._at(line)) for each in storm.pauses)
        ]
        self.again = [line for line in late if line not in self.after_a_pause]

    @cached_property
    def lost(self) -> list[str]:
        """Runs that did not end, or not as they should; events that started none, or several."""
        events = Counter(run.event.id for run in self.runs if not run.replay_of)
        told = Counter(run.event.id.partition(":")[0] for run in self.runs if run.function == "told")
        telling = [run.id for run in self.runs if run.function == "telling"]
        return [
            *(f"{event} has started {events[event]} runs" for event in self.storm.events if events[event] != 1),
            *(f"{run} has told of itself {told[run]} times: {self._story(run)}" for run in telling if told[run] != 1),
            *map(self._told, self.fates.lost),
        ]

    @property
    def stored_twice(self) -> list[str]:
        """Events that the producer has sent again because it had heard nothing; as far as the stream goes back."""
        entries: Any = self.storm.store.client.xrange(self.storm.store.keys.events)
        times = Counter(fields[b"id"].decode() for _, fields in entries)
        return [event for event in self.storm.events if times[event] > 1 and not self.storm.forgotten]

    @cached_property
    def outlived(self) -> list[Line]:
        """Bodies that were started when their run had ended, and their worker had had the time to hear of it."""
        ended = {run.id: run.ended.timestamp() for run in self.runs if run.ended is not None}
        late = [line for line in self.lines if line.word == START and line.at > ended.get(line.run, line.at) + LEASE]
        return [line for line in late if not any(_excuses(each, line, ended[line.run]) for each in self.storm.pauses)]

    @cached_property
    def ticks(self) -> list[str]:
        """What is wrong with them: from the first to the last, each second has one run, which the ledger knows, too."""
        ticks = sorted(run.event.ts for run in self.runs if run.function == TICKING)
        seconds = range(int((ticks[-1] - ticks[0]).total_seconds()) + 1)
        due = {run_of(tick): tick for tick in (ticks[0] + timedelta(seconds=each) for each in seconds)}
        started = Counter(run.id for run in self.runs if run.function == TICKING)
        done = {line.run for line in self.lines if (line.word, line.step) == (END, STEP)}
        return [
            *(f"tick {tick} has started {started[run]} runs" for run, tick in due.items() if started[run] != 1),
            *(f"tick {tick}: its run {run} was not run" for run, tick in due.items() if run not in done),
            *(f"run {run} is of no tick" for run in (started.keys() | done) - due.keys()),
        ]

    @property
    def faults(self) -> list[str]:
        return [
            *self.storm.faults,
            *self.storm.people.faults,
            *check_invariants(self.storm.store),
            *self.lost,
            *(f"{event} is stored several times" for event in self.stored_twice),
            *self.ticks,
            *self.fates.unhandled,
            *self.fates.undone,
            *(f"started when its run had ended: {line}: {self._story(line.run)}" for line in self.outlived),
            *(
                f"recorded at {self._at(line):.6f}, and started again: {line}: {self._story(line.run)}"
                for line in self.again
            ),
        ]

    @property
    def figures(self) -> str:
        """What happened, for people."""
        storm, steps = self.storm, len(self.recorded)
        took = storm.seconds + storm.settling
        killed = Counter(each.kind for each in storm.kills)
        past = sum(each.until - each.at > LEASE for each in storm.pauses)
        told = {
            "runs": f"{len(self.runs)}, of {steps} steps, in {took:.0f} s with {storm.settling:.1f} s to settle: "
                    f"{steps / took:.0f} steps/s",
            "blows": f"{_listed(storm.blows)}; {past} paused past their lease; {storm.cuts} connections cut by bytes",
            "processes killed": _listed(killed),
            "lost runs": len(self.lost),
            "children, handlers, undone runs": ", ".join(map(str, self.fates.figures)),
            "asked for by people": _listed(storm.people.done),
            "parked": sum(each.kind == "parked" for history in self.histories.values() for each in history),
            "ticks": sum(run.function == TICKING for run in self.runs),
            "lost ticks, or of several runs": len(self.ticks),
            "recorded steps started again": len(self.again),
            "started, and dropped, by a worker that was paused past its lease": len(self.after_a_pause),
            "kills after which Redis had forgotten what it had confirmed": storm.forgotten,
            **dict(self._recovery()),
        }  # fmt: skip
        return "\n".join(f"  {name}: {figure}" for name, figure in told.items())

    # -- late starts -------------------------------------------------------------------------------------------------

    def _at(self, line: Line) -> float:
        return self.recorded.get((line.run, line.step), float("inf"))

    def _is_late(self, line: Line) -> bool:
        return line.at > self._at(line) + TICK

    # -- recovery ----------------------------------------------------------------------------------------------------

    def _recovery(self) -> Iterator[tuple[str, str]]:
        """From a kill to the next start of each step that was lost by it."""
        bodies: defaultdict[int, list[tuple[Line, float]]] = defaultdict(list)  # of each process, and when they ended
        starts: defaultdict[tuple[str, str], list[Line]] = defaultdict(list)
        ended = {
            (line.pid, line.run, line.step, line.attempt): line.at for line in self.lines if line.word in (END, RAISED)
        }
        for line in self.lines:
            if line.word == START:
                starts[line.run, line.step].append(line)
                bodies[line.pid].append((line, ended.get((line.pid, line.run, line.step, line.attempt), float("inf"))))
        took: defaultdict[str, list[float]] = defaultdict(list)
        for kill in self.storm.kills:
            for body in [line for line, end in bodies[kill.pid] if line.at <= kill.at < end]:
                later = [line.at - kill.at for line in starts[body.run, body.step] if line.at > kill.at]
                if later:
                    took[kill.kind].append(min(later))
        for kind, waits in sorted(took.items()):
            p50, p99 = (quantiles([*waits, *waits], n=100, method="inclusive")[q] for q in (49, 98))
            yield (
                f"from a kill to the next start of the lost step ({kind})",
                f"p50 {p50:.2f} s, p99 {p99:.2f} s, n {len(waits)}",
            )

    # -- for who has to find out -------------------------------------------------------------------------------------

    def _told(self, id: str) -> str:
        run = self.fates.by_id[id]
        is_now = f"{run.function} is {run.status} ({run.state}) with {run.result}: {run.error}"
        return f"run {run.id}: {is_now}: {self._story(run.id)}"

    def _story(self, run: str) -> str:
        log = self.storm.log.read_text().splitlines()
        history: list[HistoryEntry] = self.histories[run]
        told = [
            *(f"{each.at:.6f} {each.kind} {each.step} #{each.attempt} {each.worker} {each.detail}" for each in history),
            *(str(line) for line in self.lines if line.run == run),
            *(line for line in log if run in line),
        ]
        return "\n    ".join(["", *told])


def _excuses(pause: Struck, line: Line, recorded: float) -> bool:
    """Was it stopped before the memo was written, and had it just gone on?"""
    return pause.pid == line.pid and pause.at < recorded and pause.until <= line.at < pause.until + LEASE


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {times}" for kind, times in sorted(counts.items()))
