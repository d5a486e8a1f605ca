"""What a worker does, and believes, in the state machine of `test_model_of_runs.py`.

Of what has become of its run meanwhile it knows nothing: it may speak long after its lease was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flowlib.journal import ENTRY, RUN, SLEEP
from flowlib.outcome import job_id

from .model_of_runs import FENCED, Held

STEPS = tuple(f"1:{name}" for name in "abcdefgh")
Call = tuple[Any, ...]  # a transition's name and its arguments


@dataclass
class Frame:
    """A run on a worker."""

    worker: str
    exec: str
    claimed: str
    at: str
    step: str
    attempt: int
    calls: int
    losses: int
    memos: set[str] = field(default_factory=set)
    placed: bool = True  # Redis knows that the run is at this step
    before: str = ""  # the recorded step before one that is not placed
    kind: str = RUN
    told: list[Call] = field(default_factory=list)  # the last memos, whose verdicts it does not know

    @property
    def recorded(self) -> bool:
        return self.step in self.memos

    @property
    def settled(self) -> bool:
        """It may go on from here."""
        return self.placed and (self.recorded or self.step == ENTRY)

    @property
    def in_body(self) -> bool:
        return not self.recorded and self.step != ENTRY

    @property
    def next(self) -> str:
        return next((step for step in STEPS if step not in self.memos and step != self.step), "")

    def held(self) -> Held:
        recorded = self.before if not self.placed else self.step if self.recorded else ""
        return Held(
            self.worker, self.exec, self.claimed, self.claimed[:26], self.at, self.step, recorded, self.attempt, self.losses
        )  # fmt: skip

    def go_on(self) -> None:
        """In place to the next step; Redis hears of it later."""
        self.before, self.step, self.placed, self.kind = self.step if self.recorded else "", self.next, False, RUN
        self.attempt = self.calls = 1

    def acts(self) -> list[str]:
        """What it may say now."""
        return [act for act, fits in ACTS.items() if fits(self)]

    def call(self, act: str, later: bool = False, memo: str = "") -> Call:
        """`later`: the next step is a sleep, a failed or released job waits for a time."""
        held = self.held()
        match act:
            case "place":
                return act, held, self.step
            case "commit":
                after = self.told[-1][1].step if self.told else ""
                return act, held, memo or f'"{self.worker} {self.exec}"', not self.placed, self.kind, after
            case "chain":
                return act, held, self.next, SLEEP if later else RUN
            case "fail":
                level, tries = ("step", self.attempt) if self.in_body else ("function", self.calls)
                return act, held._replace(attempt=tries), level, later
            case "release":
                return act, held, later
            case _:
                return act, held

    def tell(self) -> Call:
        """Its memo; the verdict on it is not awaited."""
        call = self.call("commit")
        self.told.append(call)
        self.hear("commit", "")
        return call

    def hear(self, act: str, verdict: str) -> bool:
        """Whether it still has the run."""
        if verdict == FENCED:
            return False
        if act == "commit":
            self.memos.add(self.step)
            self.losses = 0
        if act in ("commit", "place"):
            self.placed, self.at = True, job_id(self.claimed[:26], self.step)
        return act in ("commit", "place")


ACTS: dict[str, Callable[[Frame], bool]] = {
    "place": lambda frame: not frame.placed,
    "commit": lambda frame: frame.in_body,
    "chain": lambda frame: frame.placed and frame.next != "",  # also from a step that was not run: another is asked for
    "fail": lambda frame: frame.placed and (frame.settled or frame.kind == RUN),
    "finish": lambda frame: frame.placed,
    "release": lambda frame: frame.placed,
}
