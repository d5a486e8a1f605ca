"""Whose turn it is among coroutines: as a list that is searched from its beginning would tell, however many wait."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from flowlib.attempt import StepCall
from flowlib.turns import Awaited, Turns


class Call:
    """As much of a call as is looked at."""

    def __init__(self, key: str, memos: dict[str, Any]) -> None:
        self.key = key
        self._memos = memos

    @property
    def open(self) -> bool:
        return self.key not in self._memos


KEYS = st.sampled_from("abcdef")
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), KEYS),
        st.tuples(st.just("record"), KEYS),
        st.tuples(st.just("record beside"), KEYS),
        st.tuples(st.just("abandon"), st.integers(0, 9)),
        st.tuples(st.just("take"), st.just(0)),
    ),
    max_size=60,
)


@given(ACTS)
def test_the_turn_is_that_of_what_was_recorded_first_and_among_equals_of_who_asked_first(acts: list[Any]) -> None:
    memos: dict[str, Any] = {}
    order: dict[str, int] = {}
    turns, waiting = Turns(), list[Awaited]()
    for act, what in [*acts, *[("take", 0)] * 10]:
        if act == "wait":
            awaited = Awaited(cast(StepCall, Call(what, memos)), lambda: None)
            turns.add(awaited)
            waiting.append(awaited)
        elif act == "record":
            memos.setdefault(what, 1)
        elif act == "record beside":
            if what not in memos:
                memos[what] = 1
                order[what] = len(order)
        elif act == "abandon" and what < len(waiting):
            turns.discard(waiting.pop(what))
        elif act == "take":
            known = [each for each in waiting if not each.call.open]
            expected = min(known, key=lambda each: order.get(each.call.key, -1), default=None)
            assert turns.take(memos, order) is expected
            if expected is not None:
                waiting.remove(expected)
        assert list(turns) == waiting
