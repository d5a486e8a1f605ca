"""The board: what a worker holds, read by another process, at any moment, and never by halves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from flowlib import board as module
from flowlib.board import NEVER, Board
from tests.patience import until

LOAD = f"""
import importlib.util, itertools, sys
spec = importlib.util.spec_from_file_location("board", {module.__file__!r})
module = sys.modules["board"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
board = module.Board.at(int(sys.argv[1]))
"""
HAMMER = """
board.report(0)
for number in itertools.count(1):
    board.hold(1, f"{number}-" * (1 + number % 40))
    board.body(1, number)
"""

Writer = Callable[[str, Board], subprocess.Popen[bytes]]


@pytest.fixture
def writer() -> Iterator[Writer]:
    """A process that has the board and runs a program on it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, board: Board) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-c", LOAD + program, str(board.fd)]
        started.append(subprocess.Popen(command, pass_fds=[board.fd]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_what_one_process_writes_another_reads(writer: Writer) -> None:
    board = Board(3)
    assert (board.is_up, board.jobs, board.noted, board.held()) == (False, 0, "", [])
    program = (
        'board.note("redis://here"); board.hold(0, "a:1"); board.body(0, 12.5); board.hold(2, "b:2"); board.hold(1, "c:3");'
        "board.body(2, module.NEVER); board.free(1); board.report(7)"
    )
    assert writer(program, board).wait(20) == 0
    assert board.held() == [(0, "a:1", 12.5), (2, "b:2", NEVER)]
    assert (board.is_up, board.jobs, board.noted) == (True, 7, "redis://here")


def test_a_record_is_never_read_by_halves_while_it_is_written_all_the_time(writer: Writer) -> None:
    """A wrong lease would be renewed for nobody, a wrong deadline would kill a worker that has done nothing wrong."""
    board = Board(2)
    writer(HAMMER, board)
    until(lambda: board.is_up)
    seen = set[int]()
    patience = time.monotonic() + 20.0
    while len(seen) < 200:
        assert time.monotonic() < patience
        for slot, lease, deadline in board.held():
            number = int(lease.partition("-")[0])
            assert (slot, lease) == (1, f"{number}-" * (1 + number % 40))
            assert deadline in (0.0, float(number))
            seen.add(number)


def test_a_writer_that_is_killed_at_any_moment_leaves_a_board_that_can_be_read(writer: Writer) -> None:
    for _ in range(5):
        board = Board(2)
        process = writer(HAMMER, board)
        while not board.is_up:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(board.held()) <= 1


def test_a_lease_that_does_not_fit_is_not_shown_rather_than_cut() -> None:
    board = Board(1)
    board.hold(0, "x" * 1000)
    assert board.held() == []
    board.hold(0, "x" * 480)
    assert board.held() == [(0, "x" * 480, 0.0)]
