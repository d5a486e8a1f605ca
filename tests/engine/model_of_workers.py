"""What a worker does, and believes, in the state machine of `test_model_of_runs.py`.

Of what has become of its run meanwhile it knows nothing: it may speak long after its lease was lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flowlib.journal import ENTRY, RUN, SLEEP, WAIT
from flowlib.outcome import job_id

from .model_of_events import WISHES
from .model_of_runs import FENCED, Held, Wish

STEPS = tuple(f"1:{name}" for name in "abcdefgh")
Call = tuple[Any, ...]  # a transition's name and its arguments


@dataclass
class Frame:
    """A run on a worker."""

    all_acts: ClassVar[dict[str, Callable[[Frame], bool]]] = {
        "place": lambda frame: not frame.placed,
        "commit": lambda frame: frame.in_body,
        "chain": lambda frame: (
            frame.placed and frame.next != ""
        ),  # also from a step that was not run: another is asked for
        "fail": lambda frame: frame.placed and (frame.settled or frame.kind == RUN),
        "finish": lambda frame: frame.placed,
        "release": lambda frame: frame.placed,
    }
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
    asks: tuple[str, bool, int] = (
        "",
        True,
        0,
    )  # the wait at which its function was asked, is its time over, how far looked

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

    @property
    def to_hear(self) -> str:
        """The step at which it may wait: at its own, if it has come back to ask, and else at the next."""
        return self.step if self.in_body and self.kind == WAIT and self.asks[0] == self.step else self.next

    def held(self) -> Held:
        last = self.before if not self.placed else self.step if self.recorded else ""
        return Held(
            self.worker, self.exec, self.claimed, self.claimed[:26], self.at, self.step, last != "", self._told or last,
            self.attempt, self.losses,
        )  # fmt: skip

    @property
    def _told(self) -> str:
        """The key of the last memo of those whose verdicts it does not know."""
        act, held, *more = self.told[-1] if self.told else ("", None)
        return "" if held is None else more[0] if act == "note" else held.step

    def go_on(self) -> None:
        """In place to the next step; Redis hears of it later."""
        self.before, self.step, self.placed, self.kind = self.step if self.recorded else "", self.next, False, RUN
        self.attempt = self.calls = 1

    def acts(self) -> list[str]:
        """What it may say now."""
        return [act for act, fits in self.all_acts.items() if fits(self)]

    def call(self, act: str, later: bool = False, memo: str = "") -> Call:
        """`later`: the next step is a sleep, a failed or released job waits for a time."""
        held = self.held()
        match act:
            case "place":
                return act, held, self.step
            case "commit":
                return act, held, memo or f'"{self.worker} {self.exec}"', not self.placed, self.kind, self._told
            case "chain":
                return act, held, self.next, SLEEP if later else RUN
            case "fail":
                level, tries = ("step", self.attempt) if self.in_body else ("function", self.calls)
                return act, held._replace(attempt=tries), level, later
            case "release":
                return act, held, later
            case _:
                return act, held

    def tell(self, act: str = "commit") -> Call:
        """Its memo; the verdict on it is not awaited."""
        call = self.call(act)
        self.told.append(call)
        self.hear(act, "")
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


class FrameWithEvents(Frame):
    """It may also wait for an event, and ask for values."""

    all_acts: ClassVar[dict[str, Callable[[Frame], bool]]] = {
        **Frame.all_acts,
        "listen": lambda frame: frame.placed and frame.to_hear != "",
        "note": lambda frame: True,
    }

    @property
    def wish(self) -> Wish:
        return WISHES[(STEPS.index(self.to_hear) + 3 * int(self.claimed[:26])) % len(WISHES)]

    @property
    def looked(self) -> int | None:
        """Up to which event, the last time; None: it does not look back."""
        step, _, looked = self.asks
        return looked if step == self.to_hear else 0 if self.wish.looks_back else None

    def call(self, act: str, later: bool = False, memo: str = "") -> Call:
        match act:
            case "listen":
                return self.listen(self.looked, None)
            case "note":
                count = sum(key.startswith("=") for key in self.memos) + 1
                return act, self.held(), f"=uuid:{count}", f'"{self.worker} {count}"', self._told
            case _:
                return super().call(act, later, memo)

    def listen(self, looked: int | None, found: int | None) -> Call:
        """`looked` up to that event, and `found` one."""
        is_over = self.asks[1] if self.asks[0] == self.to_hear else None
        return "listen", self.held(), self.to_hear, self.wish, looked, found, is_over

    def hear(self, act: str, verdict: str) -> bool:
        if verdict != FENCED and act == "note":
            self.memos.add(f"=uuid:{sum(key.startswith('=') for key in self.memos) + 1}")
            return True
        return super().hear(act, verdict) or verdict in ("behind", "over")
