"""The demo as a user starts it: it tells its story, judges by its checks, and leaves nothing behind however it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console

from tests.patience import until
from workers.demo.ledger import RETURNED, START, Line
from workers.demo.report import Checks, returned_twice, started_again

ROOT = Path(__file__).parents[2]


class Demo:
    """`python -m workers.demo`, marked by a variable that every process it starts inherits."""

    def __init__(self, tmp_path: Path) -> None:
        self.mark = f"DEMO_MARK={uuid4().hex}"
        self.tmp = tmp_path / "tmp"
        self.tmp.mkdir()
        name, value = self.mark.split("=")
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell nobody hears it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers.demo"],
            cwd=ROOT,
            env={**os.environ, name: value, "TMPDIR": str(self.tmp), "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        signal.signal(signal.SIGINT, heard)

    def finish(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=90)
        return self.process.returncode, output

    def started(self, what: str) -> bool:
        return any(what in command for command in self.running().values())

    def running(self) -> dict[int, str]:
        """The processes that carry the mark, and their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has ended meanwhile, or is another user's
        return {pid: command for pid, command in found.items() if command}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("looks for processes left behind in /proc")
    demo = Demo(tmp_path)
    yield demo
    for pid in demo.running():
        os.kill(pid, signal.SIGKILL)
    demo.process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_demo_tells_its_story_and_leaves_nothing(demo: Demo) -> None:
    code, output = demo.finish()
    assert code == 0, output
    for claim in (
        "the run is completed: 9750 contacts",
        "the CRM has each of the 9750 good contacts once",
        "no body began again",
        "no recorded step ran twice",
        "133 bad rows lead to validate-contents and notify-invalid",
        "the CRM is as it was",
        "Every check holds.",
    ):
        assert claim in output, output
    assert not demo.running()
    assert not list(demo.tmp.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_the_demo_leaves_nothing(demo: Demo, how: signal.Signals, code: int) -> None:
    until(lambda: demo.started("workers.demo.app:app"), patience=60)
    demo.process.send_signal(how)
    assert demo.finish()[0] == code
    assert not demo.running()
    assert not list(demo.tmp.iterdir())


def test_a_claim_that_does_not_hold_is_kept_as_failed() -> None:
    checks = Checks(Console(file=io.StringIO()))
    checks.check(True, "this holds")
    checks.check(False, "this does not")
    assert checks.failed == ["this does not"]


def lines(*told: tuple[str, str]) -> list[Line]:
    return [Line("run-1", step, 1, 1, what) for step, what in told]


def test_a_recorded_step_that_begins_again_is_found_in_the_ledger() -> None:
    before = lines(("a", START), ("a", RETURNED), ("b", START))
    after = [*before, *lines(("b", START), ("b", RETURNED), ("c", START), ("c", RETURNED))]
    assert started_again({"a"}, before, after, "run-1") == set()
    assert started_again({"a"}, before, [*after, *lines(("a", START))], "run-1") == {"a"}


def test_a_step_that_returns_twice_is_found_in_the_ledger() -> None:
    once = lines(("a", START), ("a", "OSError"), ("a", START), ("a", RETURNED))
    assert returned_twice(once, "run-1") == set()
    assert returned_twice([*once, *lines(("a", START), ("a", RETURNED))], "run-1") == {"a"}
    assert returned_twice([*once, Line("run-2", "a", 1, 1, RETURNED)], "run-1") == set()
