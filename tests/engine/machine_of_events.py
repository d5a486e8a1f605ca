"""As `machine.py`, with events that are sent, dispatched late or twice, and waited for; and with values."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from flowlib.journal import WAIT
from flowlib.testing import Stored

from .machine import WORKERS, Machine, has, mishap, seldom, which
from .model_of_events import WISHES, ModelWithEvents, Sent
from .model_of_runs import Wish
from .model_of_workers import Frame, FrameWithEvents
from .scripts_of_events import ScriptsWithEvents, all_differences

AT_ONCE = 2  # events that are looked at in one call

LISTS = ((), ("[]",), ('["k"]',))  # of fields, that a dispatcher may know of
events = st.builds(Sent, st.sampled_from(["it", "it", "oh"]), st.sampled_from(["a", "a", "b", None]), st.booleans())


class MachineWithEvents(Machine):
    model_of, scripts_of, frame_of = ModelWithEvents, ScriptsWithEvents, FrameWithEvents
    model: ModelWithEvents

    # What has nothing to do with it is left to the other machine.
    renew = show = tell = commit_otherwise = reap = None

    @initialize(first=st.integers(1, len(WISHES)), earlier=st.lists(events, max_size=2), both=st.booleans())
    def begin(self, first: int, earlier: list[Sent], both: bool) -> None:
        """As there; and one of the runs waits, or both."""
        self.first_run = first
        super().begin(beyond_the_first=True)
        for event in earlier:
            self._ask("send", event)
        self._listen(self.frames["anna"], False, False)
        if both:
            self.claim(1, False)
            self._listen(self.frames["bert"], False, False)

    @precondition(lambda self: self.model.waits or len(self.model.stream) < 3)
    @rule(
        number=which,
        fitting=st.sampled_from([True, True, True, False]),
        event=events,
        known=st.sampled_from([None, *LISTS]),
    )
    def send(self, number: int, fitting: bool, event: Sent, known: tuple[str, ...] | None) -> None:
        """Often what a run waits for. `known` to the dispatcher is by which fields, unless it is away for now."""
        if fitting and self.model.waits:
            wish = sorted(self.model.waits.items())[number % len(self.model.waits)][1].wish
            event = event._replace(name=wish.name, kind=wish.kind)
        self._ask("send", event)
        if known is not None:
            self._dispatch([len(self.model.stream)], known)

    @precondition(lambda self: self.model.waits)
    @mishap(number=which, missed=st.booleans(), hurried=st.sampled_from([None, False, True]))
    def time_out(self, number: int, missed: bool, hurried: bool | None) -> None:
        """`missed`: what it waits for has been sent before, and no dispatcher has come to it."""
        job, wait = sorted(self.model.waits.items())[number % len(self.model.waits)]
        if missed:
            self._ask("send", Sent(wait.wish.name, wait.wish.kind, good=True))
        if job in self.model.timers:
            self._fire(job)
        if hurried is not None and len(self.frames) < len(WORKERS) and self._wait_is_over:
            self._come_back(hurried, False)

    @precondition(lambda self: len(self.frames) < len(WORKERS) and self._wait_is_over)
    @rule(hurried=st.booleans(), again=seldom)
    def come_back(self, hurried: bool, again: bool) -> None:
        """By the event, or the time; who asks, looks, and waits on if it was not the one."""
        self._come_back(hurried, again)

    def _come_back(self, hurried: bool, again: bool) -> None:
        known = set(self.frames)
        self.claim(0, False)
        for worker in self.frames.keys() - known:
            if self.frames[worker].kind == WAIT and self.frames[worker].in_body:
                self._listen(self.frames[worker], hurried, again)

    @property
    def _wait_is_over(self) -> bool:
        jobs = self.model.jobs
        return any(name in jobs and jobs[name].kind == WAIT for name in self.model.queue[:1])

    @precondition(lambda self: self.model.stream and (self.model.waits or len(self.model.settled) < 3))
    @rule(number=which, many=st.integers(1, 3), known=st.sampled_from(LISTS))
    def dispatch(self, number: int, many: int, known: tuple[str, ...]) -> None:
        """I5: in their order, or again what was settled long ago."""
        numbers = range(1, len(self.model.stream) + 1)
        waiting = [n for n in numbers if n not in self.model.settled]
        first = waiting[0] if waiting and number % 3 else numbers[number % len(numbers)]
        self._dispatch([*numbers[first - 1 :][:many]], known)

    def _dispatch(self, numbers: list[int], known: tuple[str, ...]) -> None:
        """What comes back is sent again, with all that the script has said of it."""
        again = self._ask("dispatch", numbers, known)
        if again:
            assert self._ask("dispatch", [number for number, _, _ in again], ("[]", '["k"]')) == []

    @has(lambda frame: frame.placed)
    @rule(number=which, hurried=st.booleans(), again=seldom)
    def listen(self, number: int, hurried: bool, again: bool) -> None:
        self._listen(self._frame(number, lambda frame: frame.placed), hurried, again)

    def _listen(self, frame: Frame, hurried: bool, again: bool) -> None:
        """`hurried`: it does not look at what has come since it looked the last time."""
        assert isinstance(frame, FrameWithEvents)
        if frame.to_hear:
            looked, found = frame.looked, None
            if looked is not None and not hurried:
                looked, found = self._look(frame.wish, looked)
            self._say(frame, frame.listen(looked, found), again)

    def _look(self, wish: Wish, looked: int) -> tuple[int, int | None]:
        more = True
        while more:
            looked, more, found = self._ask("find", wish.name, looked, AT_ONCE)
            for each in found:
                event = self.model.stream[each - 1]
                if event.fits(wish) and (event.good or not wish.asks):
                    return each, each
        return looked, None

    @has(lambda frame: "=uuid:3" not in frame.memos)
    @rule(number=which, how=st.sampled_from(["heard", "told", "lost"]), again=seldom)
    def note(self, number: int, how: str, again: bool) -> None:
        """A value; also one that a coroutine beside a body asks for. What was told and got lost is sent again (I9)."""
        frame = self._frame(number)
        if how == "heard":
            self._speak(frame, "note", again=again)
            return
        call = frame.tell("note")
        if how == "told":
            self._ask(*call)
        else:
            self.sent.append(call)

    @has(lambda frame: not frame.placed and "=uuid:3" not in frame.memos)
    @rule(number=which, unheard=st.booleans())
    def lose_value_beside(self, number: int, unheard: bool) -> None:
        """I9: `unheard`, the job was placed before, which says nothing of what was told since."""
        frame = self._frame(number, lambda frame: not frame.placed)
        if unheard:
            self._ask(*frame.call("place"))
        self.sent.append(frame.tell("note"))
        self._speak(frame, "place")

    @has(lambda frame: True)
    @mishap(number=which)
    def note_otherwise(self, number: int) -> None:
        """I1: a value that was made twice by who holds the lease."""
        frame = self._frame(number)
        if not frame.told and "=uuid:1" in frame.memos:
            self._ask("note", frame.held(), "=uuid:1", '"otherwise"', "")

    def _differences(self, stored: Stored) -> list[str]:
        return all_differences(self.model, stored)
