"""More side by side than may be open at a time, in either face: all of it is done, and the window stays as wide as promised."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import redis as redis_py

from flowlib import Event, StepFailed
from flowlib.testing import check_invariants
from tests.cases.beside import Beside
from tests.cases.case import Case, in_place
from tests.cases.test_parallel import crew
from tests.patience import until

WINDOW = 100  # as the README promises; not read from flowlib, whose own number may be wrong
WORKERS, THREADS = 3, 4


class Watched:
    """Bodies that wait at a gate until the window is full; each looks, as it begins, at how many steps are open."""

    def __init__(self, case: Case, redis: redis_py.Redis) -> None:
        self._case, self._redis = case, redis
        self._gate = threading.Event()
        self.run_id = ""
        self.seen: list[int] = []

    def body(self, n: int) -> int:
        assert self._gate.wait(20)
        self._case.ledger.append(n)
        self.seen.append(self.open())
        return n * n

    def open(self) -> int:
        """Steps that have a branch and no memo, at one instant: a branch outlives its step until its worker goes on."""
        keys = self._case.app.store.keys
        with self._redis.pipeline() as at_once:
            at_once.hkeys(keys.open(self.run_id))
            at_once.hkeys(keys.memo(self.run_id))
            branches, memos = at_once.execute()
        return len(set(branches) - set(memos))

    def play(self, window: int) -> Any:
        """The run, once it has ended; its bodies begin when so many steps are open."""
        for _ in range(WORKERS):
            self._case.start(threads=THREADS)
        self.run_id = self._case.send()
        until(lambda: self.open() >= window)
        self.seen.append(self.open())
        self._gate.set()
        run = self._case.ended(self.run_id)
        assert run.status == "completed", run.error
        return run


def test_a_map_that_is_wider_than_the_window_has_each_done_once_and_in_order(case: Case, redis: redis_py.Redis) -> None:
    """BEHAVIOURS 83, 84: a hundred at a time if nobody says less, never more."""
    watched = Watched(case, redis)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        return (yield step.map("square", watched.body, range(250)))

    run = watched.play(WINDOW)
    assert run.result == [n * n for n in range(250)]
    assert Counter(case.ledger) == dict.fromkeys(range(250), 1)
    assert max(watched.seen) == WINDOW
    assert {step.id for step in run.steps} == {f"square[{n}]" for n in range(250)}
    assert check_invariants(case.app.store) == []


@in_place
def test_more_steps_than_the_window_has_are_each_done_once_and_give_their_own_results(
    case: Case, redis: redis_py.Redis
) -> None:
    """BEHAVIOURS 83: submitted, or coroutines: a hundred beside the one that holds the function up."""
    watched = Watched(case, redis)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        beside = Beside(case, step)
        return (yield beside.all(*(beside.run(f"s{n}", watched.body, n) for n in range(150))))

    run = watched.play(WINDOW + 1)
    assert run.result == [n * n for n in range(150)]
    assert Counter(case.ledger) == dict.fromkeys(range(150), 1)
    assert max(watched.seen) == WINDOW + 1
    assert check_invariants(case.app.store) == []


@in_place
def test_a_map_tells_all_errors_or_raises_the_first(case: Case) -> None:
    """BEHAVIOURS 83: errors, too, are each one's own."""

    def picky(item: int) -> int:
        if item % 3 == 1:
            raise ValueError(item)
        return item

    @case.function(retries=0)
    def f(event: Event[Any], step: Any) -> Any:
        told = yield step.map("each", picky, range(5), return_errors=True)
        try:
            yield step.map("again", picky, range(5))
        except StepFailed as error:
            found = [item if isinstance(item, int) else (item.step, item.type, item.message) for item in told]
            return [found, error.step]

    crew(case, 2)
    run = case.run()
    assert run.status == "completed", run.error
    assert run.result == [[0, ("each[1]", "ValueError", "1"), 2, 3, ("each[4]", "ValueError", "4")], "again[1]"]
    assert check_invariants(case.app.store) == []
