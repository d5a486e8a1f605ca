"""What one worker makes of a run in place: memos that are told to Redis in a row, and one verdict on all of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flowlib import verdicts
from flowlib.capture import Recorder
from flowlib.codec import encode
from flowlib.errors import Interrupt
from flowlib.held import HeldJob
from flowlib.journal import RUN
from flowlib.model import ErrorInfo, Memo
from flowlib.retry import DEFAULTS
from flowlib.server import ANY_PORT, Server
from flowlib.store import RedisError
from flowlib.testing import AFTER, BEFORE, cut, faulty_wire
from flowlib.verdicts import MOST_TOLD
from flowlib.wire import script
from tests.crash.fleet import Forked
from tests.patience import until

from .conftest import Desk

ERROR = ErrorInfo("ValueError", "it failed", "", None, 1)
SHORT = 0.0001  # seconds


class Hand:
    """Plays a run by hand: steps `s[1]`, `s[2]`, … whose bodies take no time."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        desk.start()
        self.run = desk.claim("other").lease.run
        desk.store._labels.clear()
        claim = desk.store.claim_job("other", "exec-1", 60_000, "desk", ["flow"])
        assert not isinstance(claim, str)
        self.job = HeldJob(desk.store, claim, Recorder(self.run))
        self._numbers = count(1)
        self.steps(1)  # the first is awaited: it is not known yet whether Redis has the script

    def steps(self, many: int, seconds: float = SHORT, value: Any = None) -> None:
        for number in (next(self._numbers) for _ in range(many)):
            op = self.job.journal.ask(RUN, f"s[{number}]", "target")
            self.job.go_on(op, DEFAULTS, "flow")
            self.job.commit(op, Memo(encode(value or number, where="value")), "ok", seconds)

    def chain(self) -> None:
        self.job.chain(self.job.journal.ask(RUN, "next", "target"), DEFAULTS, "elsewhere", None)

    def finish(self) -> None:
        self.job.finish("completed", result=encode("done", where="result"))
        self.desk.store.wire.settle()

    def release(self) -> None:
        with suppress(Interrupt):  # who does not hear of it tries again, and hears that it has nothing any more
            self.job.release("shutdown")

    def retry_call(self) -> None:
        self.job.retry_call(ERROR, 60.0)

    def fail_next(self) -> None:
        op = self.job.journal.ask(RUN, "bad", "target")
        self.job.go_on(op, DEFAULTS, "flow")
        self.job.retry_step(op, ERROR, 60.0, "retry", SHORT)

    @property
    def outputs(self) -> dict[str, int]:
        return self.desk.runs.outputs(self.run)


ENDS: dict[str, Callable[[Hand], None]] = {
    "chain": Hand.chain, "finish": Hand.finish, "release": Hand.release, "retry_call": Hand.retry_call,
    "fail_next": Hand.fail_next, "long step": lambda hand: hand.steps(1, seconds=100.0),
    "assure": lambda hand: hand.job.assure(60_000),
}  # fmt: skip
ends = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


@pytest.fixture
def hand(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Hand:
    monkeypatch.setattr(verdicts, "LONGEST_TOLD", 60.0)  # a machine may be busy; then each would be awaited
    return Hand(desk)


def all_of(many: int) -> dict[str, int]:
    return {f"s[{number}]": number for number in range(1, many + 1)}


@ends
def test_short_steps_are_told_in_a_row_and_all_are_recorded(hand: Hand, end: Callable[[Hand], None]) -> None:
    hand.steps(5)
    end(hand)
    assert all_of(6).items() <= hand.outputs.items()
    assert hand.desk.faults() == []


def test_the_verdict_is_asked_for_every_so_often(hand: Hand) -> None:
    """Of 40 steps, 40 are stored and 3 were waited for: nobody is far ahead of what Redis has said."""
    replies = []
    wire, call = hand.desk.store.wire, hand.desk.store.wire.call

    def calling(packed: tuple[bytes, object]) -> object:
        replies.append(packed)
        return call(packed)  # type: ignore[arg-type]

    wire.call = calling  # type: ignore[method-assign]
    hand.steps(40)
    assert len(replies) == 40 // MOST_TOLD
    hand.job.settle()
    assert hand.outputs == all_of(41)


@ends
def test_memos_whose_script_redis_has_forgotten_are_sent_again(hand: Hand, end: Callable[[Hand], None]) -> None:
    """I9: what was lost without a word comes to light with the next verdict, and no step is left out."""
    hand.steps(2)
    hand.job.settle()
    hand.desk.store.client.script_flush()
    hand.steps(5)
    end(hand)
    assert all_of(8).items() <= hand.outputs.items()
    assert hand.desk.faults() == []


@ends
@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize("at", [1, 3, 4, 7])
def test_memos_on_a_connection_that_breaks_are_sent_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, end: Callable[[Hand], None], when: str, at: int
) -> None:
    """BEHAVIOURS 146; I9, I3: at whichever command the connection breaks."""
    monkeypatch.setattr(verdicts, "LONGEST_TOLD", 60.0)
    hand = Hand(desk)
    desk.use_wire(faulty_wire(cut, at, when))
    hand.steps(5)
    end(hand)
    desk.store.wire.settle()
    assert all_of(6).items() <= hand.outputs.items()
    assert len(desk.history(hand.run, "recorded")) == len(hand.outputs)
    assert desk.faults() == []


def test_a_step_that_takes_a_moment_has_what_came_before_it_recorded(hand: Hand) -> None:
    """I9: the beat, which makes its job, sees to that: the body may take long, and its worker may die meanwhile."""
    hand.desk.store.client.script_flush()
    hand.steps(3)
    hand.job.go_on(hand.job.journal.ask(RUN, "long", "target"), DEFAULTS, "flow")
    assert hand.job.place(hand.desk.store.hasty()) == "placed"
    assert hand.outputs == all_of(4)


def test_a_value_asked_for_beside_a_body_is_recorded_before_its_step_is_tried_again(hand: Hand) -> None:
    """I9: a coroutine beside the body's may ask for one; a verdict that does not speak of it is none on it."""
    desk, journal = hand.desk, hand.job.journal
    hand.job.keep_value(journal.next_value("uuid"), Memo(encode("first", where="value")))  # from here on it may be told
    hand.job.settle()
    op = journal.ask(RUN, "bad", "target")
    hand.job.go_on(op, DEFAULTS, "flow")
    desk.store.client.script_flush()
    hand.job.keep_value(journal.next_value("uuid"), Memo(encode("second", where="value")))
    hand.job.retry_step(op, ERROR, 60.0, "retry", SHORT)
    assert desk.store.client.hexists(desk.store.keys.memo(hand.run), "=uuid:2")
    assert desk.faults() == []


class Beside:
    """A step that is under way, and a coroutine beside its body that asks for a value; Redis never hears of that."""

    def __init__(self, hand: Hand) -> None:
        self.hand, self.job = hand, hand.job
        self.job.keep_value(self.job.journal.next_value("uuid"), Memo(encode("first", where="value")))
        self.job.settle()  # from here on it may be told
        self.op = self.job.journal.ask(RUN, "bad", "target")
        self.job.go_on(self.op, DEFAULTS, "flow")
        hand.desk.store.client.script_load(script("place_job").source)

    def ask(self) -> None:
        """The server has forgotten that one script."""
        client = self.hand.desk.store.client
        client.script_flush()
        client.script_load(script("place_job").source)
        self.job.keep_value(self.job.journal.next_value("uuid"), Memo(encode("second", where="value")))

    def fail(self) -> None:
        self.job.retry_step(self.op, ERROR, 60.0, "retry", SHORT)

    @property
    def recorded(self) -> bool:
        desk = self.hand.desk
        return bool(desk.store.client.hexists(desk.store.keys.memo(self.hand.run), "=uuid:2"))


def test_a_job_that_was_placed_before_says_nothing_of_what_was_told_since(hand: Hand) -> None:
    """I9: its beat has placed it, and has not heard of that; so it is placed again, and the value was lost meanwhile."""
    beside, hasty = Beside(hand), hand.desk.store.hasty()
    place_job = hasty.place_job

    def unheard(*args: Any, **kwargs: Any) -> str:
        raise RedisError(f"the reply is lost: {place_job(*args, **kwargs)}")

    hasty.place_job = unheard  # type: ignore[method-assign]
    with pytest.raises(RedisError):
        hand.job.place(hasty)
    beside.ask()
    beside.fail()
    assert beside.recorded
    assert hand.desk.faults() == []


def test_a_job_that_the_beat_places_meanwhile_says_nothing_of_what_was_told_since(hand: Hand) -> None:
    """I9: who waits for its turn, and then finds the job placed, has heard no verdict."""
    beside, hasty, turn = Beside(hand), hand.desk.store.hasty(), hand.job._turn
    placed, awaited = threading.Event(), threading.Event()
    place_job = hasty.place_job

    def slow(*args: Any, **kwargs: Any) -> str:
        verdict = place_job(*args, **kwargs)
        placed.set()
        assert awaited.wait(20)
        return verdict

    class Turn:
        def __enter__(self) -> None:
            if threading.current_thread() is threading.main_thread():
                awaited.set()
            turn.acquire()

        def __exit__(self, *_: object) -> None:
            turn.release()

    hasty.place_job = slow  # type: ignore[method-assign]
    hand.job._turn = Turn()  # type: ignore[assignment]
    beat = threading.Thread(target=hand.job.place, args=[hasty])
    beat.start()
    assert placed.wait(20)
    beside.ask()
    beside.fail()
    beat.join(20)
    assert beside.recorded
    assert hand.desk.faults() == []


def test_one_who_has_lost_the_lease_is_told_so_and_has_recorded_nothing_since(hand: Hand) -> None:
    """I2."""
    hand.desk.store.client.delete(hand.desk.store.keys.leases)
    with pytest.raises(Interrupt):
        hand.steps(2 * MOST_TOLD)
    assert hand.outputs == all_of(1)


def test_a_memo_without_the_one_before_is_refused(hand: Hand) -> None:
    """I9: what is recorded has no gaps, so the last verdict is on all of them."""
    hand.steps(3)
    hand.job.settle()
    hand.steps(1)
    hand.desk.store.client.hdel(hand.desk.store.keys.memo(hand.run), "1:s[5]")
    hand.steps(1)
    assert hand.outputs == all_of(4)
    hand.job.settle()
    assert hand.outputs == all_of(6)


def test_where_replies_cannot_be_turned_off_each_is_awaited(
    hand: Hand, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind some proxies, or by the ACL of an older version: slower, and as safe."""
    desk = hand.desk
    desk.store.client.acl_setuser(
        "narrow", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-client|reply"]
    )
    desk.store.wire._connection.send_command("AUTH", "narrow", "")
    desk.store.wire._connection.read_response()
    hand.steps(5)
    assert hand.outputs == all_of(6)
    assert "CLIENT REPLY" in caplog.text
    hand.finish()
    assert desk.faults() == []


def play_and_die(url: str, server: int) -> None:
    verdicts.LONGEST_TOLD = 60.0
    hand = Hand(Desk(url))
    hand.steps(3)
    until(lambda: len(hand.outputs) == 4)  # Redis has looked at all so far, and would have replied
    os.kill(server, signal.SIGSTOP)
    hand.steps(8, value="x" * 6000)  # more than Redis reads at a time
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_told_is_recorded_though_its_sender_dies_before_redis_looks(tmp_path: Path) -> None:
    """I9: Redis stands still while eight steps run and their worker is killed. The kernel hands over what was sent.

    If a reply lay unread in the worker's socket, or came when nobody is there to read it, the rest would be dropped.
    """
    with Server.start(tmp_path / "server", port=ANY_PORT) as server:
        worker = Forked(play_and_die, tmp_path / "notes", server.url, server.pid)
        assert worker.exit_code == -signal.SIGKILL
        os.kill(server.pid, signal.SIGCONT)
        desk = Desk(server.url)
        (run,) = desk.runs.list()
        until(lambda: len(desk.runs.outputs(run.id)) == 12)
        assert desk.faults() == []
        desk.store.close()


def test_the_order_in_which_steps_were_recorded_is_the_same_learned_at_once_or_in_parts(desk: Desk) -> None:
    """Every pass has to see it alike, however often it has asked before."""
    hand = Hand(desk)
    store, run = desk.store, hand.job.lease.run
    steps = [f"1:s{number}" for number in range(9)]
    for part in (steps[:4], steps[4:6], steps[6:]):
        store.client.rpush(store.keys.order(run), *part)
        hand.job.catch_up()
    assert sorted(hand.job.order, key=lambda step: hand.job.order[step]) == steps
