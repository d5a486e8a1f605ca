"""THE RULE: given a run's memos, is the step that the function asks for known, mine, or next?

The function is replayed from its start. A step whose memo exists is *known*: its value is handed out and its body does
not run. The step whose job this worker holds is *mine*: its body runs now, once, and is recorded. Any other step is
*next*: it needs a job of its own first. Steps are found by their id, not by their position, so a function may ask for
them in another order from pass to pass. A step id that comes up again (in a loop) is counted: `2:charge` is the second.

Pure: no Redis, no RQ, no clock, no randomness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .errors import ConfigError, NondeterminismError
from .model import Memo

ENTRY = ""  # the step of a run's first job, which only calls the function to learn what its first step is

UNDO = "=undo:"  # what the keys of values begin with that say that a step has something which undoes it
ENDING = "=ending:1"  # a value: how the run ends, once all that it has registered is undone

RUN, SLEEP, SEND, WAIT, INVOKE, PROMISE = "run", "sleep", "send", "wait", "invoke", "promise"
BODILESS = (SLEEP, WAIT, INVOKE, PROMISE)  # nothing runs in these


class Place(Enum):
    KNOWN = "known"
    MINE = "mine"
    NEXT = "next"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation that the function asks for: the key of its memo, its kind, its id as the user wrote it."""

    key: str
    kind: str
    id: str


def key_of(step_id: str, occurrence: int) -> str:
    return f"{occurrence}:{step_id}"


def id_of(key: str) -> str:
    """The step id as the user wrote it; a later occurrence is shown as `charge (2)`."""
    occurrence, _, step_id = key.partition(":")
    return step_id if occurrence in ("1", "") else f"{step_id} ({occurrence})"


def is_step(key: str) -> bool:
    """Of a memo; else it is of a value that the function has asked for between its steps."""
    return not key.startswith("=")


UNKNOWN: Any = object()  # stands for the value of a step that is not recorded


class Journal:
    """The memos of one run, and which step this worker may run."""

    def __init__(self, memos: dict[str, Memo], mine: str, mine_kind: str) -> None:
        self.memos = memos
        self.mine = mine
        self.mine_kind = mine_kind
        self.live = mine == ENTRY  # False while the function only repeats what earlier workers have seen
        self._seen: dict[str, tuple[int, str, Any]] = {}
        self._values: Counter[str] = Counter()

    def recall(self, kind: str, step_id: str, target: Any) -> tuple[str, Memo] | None:
        """The key and memo of a step that is known and not mine, as most are that a replay asks for; what is unusual
        about it is for `ask`, which comes to the same.
        """
        if type(step_id) is not str:
            return None
        seen = self._seen.get(step_id)
        if seen is None:
            occurrence, key = 1, "1:" + step_id
        elif seen[1] is kind and seen[2] is target:
            occurrence = seen[0] + 1
            key = f"{occurrence}:{step_id}"
        else:
            return None
        memo = self.memos.get(key)
        if memo is None or key == self.mine or (memo.kind != kind and memo.kind):
            return None
        self._seen[step_id] = (occurrence, kind, target)
        return key, memo

    def ask(self, kind: str, step_id: str, target: Any) -> Op:
        """Name the operation; `target` is what it calls. Raises ConfigError for a bad id, or for one id used for two
        different steps.
        """
        if not isinstance(step_id, str) or not step_id or len(step_id) > 256:
            raise ConfigError(f"step id {step_id!r}: must be a string of 1 to 256 characters")
        occurrence, known_kind, known = self._seen.get(step_id, (0, kind, target))
        if known_kind != kind or (known is not target and name_of(known) != name_of(target)):
            raise ConfigError(
                f"duplicate step id {step_id!r}: it stands for {_described(known_kind, known)} and for "
                f"{_described(kind, target)}: give each step of a function an id of its own"
            )
        self._seen[step_id] = (occurrence + 1, kind, target)
        return Op(key_of(step_id, occurrence + 1), kind, step_id)

    def has_asked(self, key: str) -> bool:
        """Has the function come to this step in this pass?"""
        nth, _, step_id = key.partition(":")
        seen = self._seen.get(step_id)
        return seen is not None and seen[0] >= int(nth)

    @property
    def asked(self) -> Container[str]:
        """Ids that the function has used so far."""
        return self._seen.keys()

    def next_value(self, name: str) -> str:
        """The key of the memo of such a value: they are told apart by the order in which the function asks for them."""
        self._values[name] += 1
        return f"={name}:{self._values[name]}"

    def patch(self, patch: str) -> str:
        """The key of the memo that says whether a run has that change of its function. Raises ConfigError for a bad id."""
        if not isinstance(patch, str) or not patch or len(patch) > 256:
            raise ConfigError(f"step.patched({patch!r:.60}): an id must be a string of 1 to 256 characters")
        return f"=patched:{patch}"

    def place(self, op: Op) -> Place:
        """Known, mine or next. Raises NondeterminismError when its memo, or the job that we hold, is of another kind of
        operation.
        """
        self.check(op)
        if op.key == self.mine:
            self.live = True
        if op.key in self.memos:
            return Place.KNOWN
        return Place.MINE if op.key == self.mine else Place.NEXT

    def check(self, op: Op) -> None:
        """Is it the kind of operation that it began as? Raises NondeterminismError."""
        memo = self.memos.get(op.key)
        began = memo.kind if memo is not None and memo.error is None else ""
        if op.key == self.mine:
            began = began or self.mine_kind
        if began and began != op.kind:
            raise NondeterminismError(
                f"step {op.id!r} began as {began!r} and is now {op.kind!r}: the function changed under a "
                f"run that had reached it: give the new step another id"
            )

    def move_to(self, op: Op) -> None:
        """The job of `op` is ours from now on."""
        self.mine, self.mine_kind, self.live = op.key, op.kind, True

    def record(self, key: str, memo: Memo) -> None:
        """Remember a memo. The first write wins (I1)."""
        self.memos.setdefault(key, memo)


def name_of(target: Any) -> str:
    """What a step calls, by name: a lambda, or a function inside the function, is another object in each pass."""
    if target is None:
        return ""
    target = getattr(target, "func", target)
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', type(target).__qualname__)}"


def _described(kind: str, target: Any) -> str:
    return f"{kind} of {name_of(target)}" if target is not None else kind
