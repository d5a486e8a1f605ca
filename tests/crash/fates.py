"""What is to become of each run of a storm, and of what it has others do: held against all that Redis holds and the ledger.

A run whose function is not named here has to return 4.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from flowlib import App
from flowlib.journal import id_of
from flowlib.model import CANCELLED, COMPLETED, FAILED, HistoryEntry, Run

from .ledger import END, START, Line
from .outcomes import OVERHEARD, UNDO
from .people import REASON

UNDONE = ("undoing", "undoing-async", "undoing-midway")
Judge = Callable[["Fates", Run], bool]


class Fates:
    def __init__(
        self, app: App, runs: list[Run], histories: dict[str, list[HistoryEntry]], lines: list[Line], forgetful: bool
    ) -> None:
        self.app, self.runs, self.histories, self.forgetful = app, runs, histories, forgetful
        self.by_id = {run.id: run for run in runs}
        self.children: defaultdict[str, list[Run]] = defaultdict(list)
        self.bodies: defaultdict[str, list[Line]] = defaultdict(list)
        for run in runs:
            self.children[run.parent].append(run)
        for line in lines:
            self.bodies[line.run].append(line)

    @property
    def lost(self) -> list[str]:
        """Runs that did not end, or not as they should."""
        return [run.id for run in self.runs if not JUDGES.get(run.function, _is_four)(self, run)]

    @property
    def unhandled(self) -> Iterator[str]:
        """Of each end of a run, each of its handlers has one run."""
        handled = Counter((run.function, run.result) for run in self.runs if isinstance(run.result, str))
        for run in self.runs:
            ends = Counter(each.kind for each in self.histories[run.id] if is_end(each))
            handlers = {"on-success": COMPLETED, "on-failure": FAILED, "on-cancel": CANCELLED}
            due = {f"{run.function}.{what}": ends[status] for what, status in handlers.items()}
            if run.function in OVERHEARD:
                due["overhearing"] = ends.total()
            for handler, times in due.items():
                if handler in self.app.functions and (was := handled[handler, run.id]) != times:
                    yield f"{run.id} ({run.function}) has ended {dict(ends)}, {handler} was run {was} times"

    @property
    def undone(self) -> Iterator[str]:
        """What was recorded before the run failed or was cancelled is undone, the newest first, and nothing else."""
        for run in self.runs:
            if run.function not in UNDONE:
                continue
            steps = [id_of(each.step) for each in self.histories[run.id] if each.kind == "recorded"]
            done = [step for step in steps if len(step) == 1]
            undos = [step for step in steps if step.startswith(UNDO)]
            names = [UNDO, *(f"{UNDO} #{nth}" for nth in range(2, len(done) + 1))]
            due = [] if run.status == COMPLETED else names[: len(done)][::-1]
            if undos != due:
                yield f"{run.id} ({run.function}) has done {done} and undone {undos}: {run.status}"
            elif not self._in_turn(run.id, undos):
                yield f"{run.id} ({run.function}) has begun to undo something before it was done with another"

    def _in_turn(self, run: str, steps: list[str]) -> bool:
        """By the ledger: no body of one has started before one of the step before it has ended."""
        for before, after in pairwise(steps):
            started = min(line.at for line in self.bodies[run] if (line.word, line.step) == (START, after))
            ended = min(line.at for line in self.bodies[run] if (line.word, line.step) == (END, before))
            if started < ended:
                return False
        return True

    @property
    def figures(self) -> tuple[int, int, int]:
        """How many children, handlers, and runs that have undone something there are."""
        undone = {run for run, history in self.histories.items() if any(UNDO in each.step for each in history)}
        handlers = sum(".on-" in run.function or run.function == "overhearing" for run in self.runs)
        return sum(bool(run.parent) for run in self.runs), handlers, len(undone)

    def children_of(self, run: Run) -> list[str]:
        return sorted(child.function for child in self.children[run.id])


def is_end(entry: HistoryEntry) -> bool:
    return entry.kind in (COMPLETED, CANCELLED) or (entry.kind == FAILED and "level" not in entry.detail)


def _is_four(_: Fates, run: Run) -> bool:
    return (run.status, run.result) == (COMPLETED, 4)


def _tells_its_id(_: Fates, run: Run) -> bool:
    return (run.status, run.result) == (COMPLETED, run.id)


def _has_failed(fates: Fates, run: Run) -> bool:
    return run.status == FAILED and not fates.children[run.id]


def _was_cancelled(_: Fates, run: Run) -> bool:
    return run.status == CANCELLED


def _has_handled(fates: Fates, run: Run) -> bool:
    return run.status == COMPLETED and run.result in fates.by_id


def _tells_of(*functions: str) -> Judge:
    """Its result are the ids of its children that have returned; it has none but these."""

    def judge(fates: Fates, run: Run) -> bool:
        returned = [child.id for child in fates.children[run.id] if child.status == COMPLETED]
        told = [run.result] if isinstance(run.result, str) else run.result
        return (
            run.status == COMPLETED and sorted(told) == sorted(returned) and fates.children_of(run) == sorted(functions)
        )

    return judge


def _leaves(fates: Fates, run: Run) -> bool:
    """Who was not waited for may not have begun."""
    return _tells_of("growing")(fates, run) or _tells_of("growing", "dwelling")(fates, run)


def _is_over_before(fates: Fates, run: Run) -> bool:
    """Begun in time, or not at all."""
    if run.status == COMPLETED:
        return run.result == 4
    return run.status == CANCELLED and run.reason.startswith("start timeout") and not fates.bodies[run.id]


def _was_cancelled_by(words: str) -> Judge:
    return lambda _, run: run.status == CANCELLED and run.reason.startswith(words)


def _is_cancelled_by_hand(fates: Fates, run: Run) -> bool:
    """The child that depends on nobody was begun if the run had come to it; the other one may not have been."""
    begun = [each.detail["child"] for each in fates.histories[run.id] if each.kind == "waiting" and "own" in each.step]
    own = [child.id for child in fates.children[run.id] if child.function == "growing"]
    is_right = own == begun and fates.children_of(run).count("dwelling") < 2
    return is_right and _was_cancelled_by(REASON)(fates, run)


def _is_mended(fates: Fates, run: Run) -> bool:
    return _is_four(fates, run) and (run.retried == 1 or fates.forgetful)


def _is_replayed(*anew: str) -> Judge:
    """It has failed, and one that was made of it has done these steps, and no other again."""

    def judge(fates: Fates, run: Run) -> bool:
        if run.replay_of:
            return _is_four(fates, run) and {line.step for line in fates.bodies[run.id]} == set(anew)
        made = [each.id for each in fates.runs if each.replay_of == run.id]
        return fates.forgetful or (run.status == FAILED and [*run.replays] == made and len(made) == 1)

    return judge


def _is_undone_midway(_: Fates, run: Run) -> bool:
    if run.status == COMPLETED:
        return run.result == 4
    return run.status == CANCELLED and run.reason.startswith("run timeout")


JUDGES: dict[str, Judge] = {
    "growing": _tells_its_id,
    "rare": _tells_its_id,
    "refusing": _has_failed,
    "dwelling": _was_cancelled,
    "raising": _tells_of("growing", "growing", "refusing"),
    "gathering": _tells_of("growing", "growing"),
    "leaving": _leaves,
    "meeting": _tells_of("rare"),
    "overhearing": _has_handled,
    **dict.fromkeys(
        [
            *(f"{name}.on-failure" for name in ("failing", "mending", "undoing", "undoing-async")),
            *(f"{name}.on-cancel" for name in ("late", "stopped", "endless", "undoing-midway")),
            "succeeding.on-success",
        ],
        _has_handled,
    ),
    "failing": _has_failed,
    "late": _was_cancelled_by("run timeout"),
    "hasty": _is_over_before,
    "stopped": _was_cancelled_by("event stop"),
    "endless": _is_cancelled_by_hand,
    "mending": _is_mended,
    "repeating": _is_replayed("charge", "b"),
    "revising": _is_replayed("b"),
    "undoing": _has_failed,
    "undoing-async": _has_failed,
    "undoing-midway": _is_undone_midway,
}
