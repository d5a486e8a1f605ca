"""The benchmark measures what it says, and ends everything that it has started. How fast anything is, no test judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.benchmarks.measure import ROOT, percentile, rate
from tests.benchmarks.report import spread


def test_a_rate_counts_the_intervals_between_marks_in_whatever_order_they_came() -> None:
    assert rate([10.0, 10.5, 11.0, 12.0, 11.5]) == 2.0


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(n) for n in range(50, 0, -1)]
    assert percentile(values, 50) == 25.0
    assert percentile(values, 99) == 50.0
    assert percentile([7.0], 99) == 7.0


def test_a_spread_shows_the_median_and_the_extremes_of_several_rounds() -> None:
    assert spread([1512.4]) == "1,512"
    assert spread([3.0, 1.0, 20.0]) == "3.00 (1.00..20.0)"


@pytest.mark.slow
def test_every_peer_is_measured_in_every_figure_and_no_process_is_left(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    told = _bench("--runs", "4", "--repeat", "1", "--json", str(file))
    measured = json.loads(file.read_text())["rounds"]
    assert measured.keys() == {"flowlib", "rq SimpleWorker", "rq Worker"}
    for name, rounds in measured.items():
        assert len(rounds) == 1
        again = rounds[0].pop("again")
        assert (again, [figure for figure, value in rounds[0].items() if value <= 0]) == (0, []), name
        assert name in told


@pytest.mark.slow
def test_the_profile_shows_scripts_commands_and_the_workers_python(tmp_path: Path) -> None:
    told = _bench("profile", "--runs", "4")
    for expected in ("commit_step", "evalsha", "tottime"):
        assert expected in told


def _bench(*options: str) -> str:
    """What it prints; every process that it starts inherits the name that we look for afterwards."""
    name = f"BENCH_TEST={uuid4()}"
    command = ["env", name, sys.executable, "-m", "tests.benchmarks", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not _processes_with(name.encode())
    return ran.stdout


def _processes_with(variable: bytes) -> list[str]:
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable in (process / "environ").read_bytes().split(b"\0") and process.name != str(os.getpid()):
                left.append((process / "cmdline").read_text())
        except OSError:
            pass  # it ended meanwhile, or is another user's
    return left
