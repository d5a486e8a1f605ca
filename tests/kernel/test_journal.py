"""THE RULE, by its properties: replay of any part of a run gives the same values and asks for the same next step."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.errors import ConfigError, NondeterminismError
from flowlib.journal import ENTRY, RUN, SLEEP, Journal, Op, Place, id_of, key_of
from flowlib.model import Memo

IDS = st.text(st.characters(), min_size=1, max_size=12)  # all of Unicode, lone surrogates included
PROGRAMS = st.lists(IDS | st.sampled_from(["charge", "1:charge", "2:charge", "charge (2)", " ", "/"]), max_size=12)

Memos = dict[str, Memo]


def value_of(key: str) -> bytes:
    """What the body of that step returns."""
    return b"value of " + key.encode("utf-8", "surrogatepass")


def play(program: Sequence[str], memos: Memos, mine: str = ENTRY, *, stay: bool = False) -> tuple[list[Op], Op | None]:
    """Run a function that asks for these steps: what it was given values of, and the step that needs a job first.

    Bodies that may run here are run, and recorded in `memos`. With `stay` every job is had at once, as in place.
    """
    journal = Journal(memos, mine, RUN)
    passed: list[Op] = []
    for step_id in program:
        op = journal.ask(RUN, step_id, "body")
        place = journal.place(op)
        if place is Place.NEXT:
            if not stay:
                return passed, op
            journal.move_to(op)
            assert journal.place(op) is Place.MINE
        if place is not Place.KNOWN:
            journal.record(op.key, Memo(value_of(op.key)))
        assert journal.memos[op.key].value == value_of(op.key)
        passed.append(op)
    return passed, None


@given(PROGRAMS)
def test_replay_of_any_prefix_gives_the_same_values_and_asks_for_the_same_next_step(program: list[str]) -> None:
    """BEHAVIOURS 2, 6, 7: however much of a run is recorded, its replay goes the same way."""
    memos: Memos = {}
    ops, stopped_at = play(program, memos, stay=True)
    assert stopped_at is None
    keys = [op.key for op in ops]
    assert list(memos) == keys
    for known in range(len(keys) + 1):
        mine = keys[known - 1] if known else ENTRY
        passed, asked = play(program, {key: memos[key] for key in keys[:known]}, mine)
        assert [op.key for op in passed] == keys[:known]
        assert asked == (ops[known] if known < len(ops) else None)


@given(PROGRAMS)
def test_a_run_that_is_replayed_at_every_step_does_what_one_in_place_does(program: list[str]) -> None:
    """BEHAVIOURS 2: each body once, whether the run stays on one worker or moves between workers."""
    in_place: Memos = {}
    play(program, in_place, stay=True)
    memos: Memos = {}
    passed, asked = play(program, memos)
    passes = 1
    while asked is not None:
        passed, asked = play(program, memos, asked.key)
        passes += 1
    assert passes == len(program) + 1
    assert memos == in_place
    assert len(passed) == len(program)


@given(st.lists(IDS, unique=True, max_size=8), st.randoms(use_true_random=False))
def test_steps_in_another_order_at_each_pass_run_once_each_and_keep_their_values(
    ids: list[str], chance: random.Random
) -> None:
    """BEHAVIOURS 14: steps are found by their ids, not by their places."""
    memos: Memos = {}
    mine = ENTRY
    shuffled = (chance.sample(ids, len(ids)) for _ in range(30))
    for order in chain(shuffled, repeat(ids)):  # an order that stays comes to its end
        before = len(memos)
        passed, asked = play(order, memos, mine)
        assert len(memos) - before <= 1, "only the step whose job is held may run"
        if asked is None:
            assert [op.id for op in passed] == order
            break
        mine = asked.key
    assert set(memos) == {key_of(step_id, 1) for step_id in ids}


@given(PROGRAMS)
def test_each_time_that_an_id_comes_up_it_has_a_memo_of_its_own(program: list[str]) -> None:
    """BEHAVIOURS 7: a step id in a loop is counted."""
    memos: Memos = {}
    ops, _ = play(program, memos, stay=True)
    assert len({op.key for op in ops}) == len(program)
    for step_id, times in Counter(program).items():
        assert [op.key for op in ops if op.id == step_id] == [key_of(step_id, n) for n in range(1, times + 1)]


@given(st.tuples(IDS, st.integers(1, 10**6)), st.tuples(IDS, st.integers(1, 10**6)))
def test_a_key_stands_for_one_id_and_one_occurrence(one: tuple[str, int], other: tuple[str, int]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)
    assert id_of(key_of(one[0], 1)) == one[0]


def test_people_see_the_id_as_it_was_written_and_later_ones_counted() -> None:
    assert [id_of(key) for key in ("1:charge", "2:charge", "1:a:b", "12:1:x", ENTRY)] == [
        "charge", "charge (2)", "a:b", "1:x (12)", "",
    ]  # fmt: skip


@given(PROGRAMS, st.data())
def test_the_short_way_to_a_known_step_comes_to_the_same(program: list[str], data: st.DataObject) -> None:
    """BEHAVIOURS 6, 7: and it hands out nothing of the step whose job is ours, nor of one that is not recorded."""
    ops, _ = play(program, {}, stay=True)
    keys = [op.key for op in ops]
    known = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
    mine = data.draw(st.sampled_from([ENTRY, *keys]))
    slow, short = (Journal({key: Memo(value_of(key)) for key in known}, mine, RUN) for _ in range(2))
    for step_id in program:
        op = slow.ask(RUN, step_id, charge)
        place = slow.place(op)
        found = short.recall(RUN, step_id, charge)
        assert (found is not None) == (place is Place.KNOWN and op.key != mine)
        assert found == (op.key, slow.memos[op.key]) if found else short.ask(RUN, step_id, charge) == op


def test_the_short_way_leaves_another_operation_under_one_id_to_be_refused() -> None:
    journal = Journal({"1:pay": Memo(b"1"), "2:pay": Memo(b"2")}, ENTRY, RUN)
    assert journal.recall(RUN, "pay", charge) == ("1:pay", Memo(b"1"))
    assert journal.recall(RUN, "pay", refund) is None
    assert journal.recall(SLEEP, "pay", None) is None


def charge() -> None: ...


def refund() -> None: ...


@pytest.mark.parametrize(("kind", "target"), [(RUN, refund), (SLEEP, None)])
def test_one_id_for_two_different_steps_is_refused_and_both_are_named(kind: str, target: Any) -> None:
    journal = Journal({}, ENTRY, RUN)
    journal.ask(RUN, "pay", charge)
    journal.ask(RUN, "pay", charge)
    with pytest.raises(ConfigError, match=rf"duplicate step id 'pay'.* run of .*\.charge and for {kind}"):
        journal.ask(kind, "pay", target)


@pytest.mark.parametrize("step_id", ["", "x" * 257, 7, None, b"bytes", ["list"]], ids=repr)
def test_what_is_no_step_id_is_refused(step_id: Any) -> None:
    with pytest.raises(ConfigError, match=r"step id .* must be a string of 1 to 256 characters"):
        Journal({}, ENTRY, RUN).ask(RUN, step_id, "")


def test_the_longest_step_id_is_taken() -> None:
    assert Journal({}, ENTRY, RUN).ask(RUN, "é" * 256, "").key == "1:" + "é" * 256


def test_a_step_that_became_one_of_another_kind_is_refused_with_the_remedy() -> None:
    """The job that we hold was made for a step that is now a sleep: the code changed under the run."""
    journal = Journal({}, "1:wait", RUN)
    with pytest.raises(NondeterminismError, match=r"'wait' began as 'run' and is now 'sleep'.*another id"):
        journal.place(journal.ask(SLEEP, "wait", None))


def test_a_function_speaks_up_only_where_no_worker_has_been() -> None:
    """BEHAVIOURS 126: what is repeated is silent, up to the step whose job is ours."""
    journal = Journal({"1:a": Memo(b"1")}, "1:b", RUN)
    assert not journal.live
    assert journal.place(journal.ask(RUN, "a", "")) is Place.KNOWN
    assert not journal.live
    assert journal.place(journal.ask(RUN, "b", "")) is Place.MINE
    assert journal.live
    assert Journal({}, ENTRY, RUN).live


def test_a_new_step_that_appears_before_the_one_that_is_ours_comes_first() -> None:
    """BEHAVIOURS 14: the job that we hold is then superseded, and its step asked for again later."""
    journal = Journal({}, "1:b", RUN)
    assert journal.place(journal.ask(RUN, "new", "")) is Place.NEXT
    assert "1:b" not in journal.memos


def test_the_first_write_of_a_memo_wins() -> None:
    """I1."""
    journal = Journal({}, "1:a", RUN)
    op = journal.ask(RUN, "a", "")
    journal.record(op.key, Memo(b"first"))
    journal.record(op.key, Memo(b"second"))
    assert journal.memos == {"1:a": Memo(b"first")}
    assert journal.place(op) is Place.KNOWN
