"""The benchmark measures what it says, and ends everything that it has started. How fast anything is, no test judges."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import pytest

from tests.benchmarks.bench import ROOT, percentile, rate
from tests.benchmarks.chart import svg
from tests.benchmarks.parts import LESS, MORE, PARTS
from tests.benchmarks.report import spread
from tests.benchmarks.restate import find_restate
from tests.benchmarks.results import Results
from tests.benchmarks.roster import RESTATE, SYSTEMS, System, missing

RATES = {"flowlib": [900.0, 1000.0, 1400.0], "huey": [300.0, 500.0, 700.0]}


@pytest.fixture
def results() -> Results:
    made = Results({"cores": 2}, {"scale": 1.0}, at="2026-11-22T21:00+00:00")
    for number in range(3):
        for system, rates in RATES.items():
            made.add("steps", system, {"steps_1": rates[number], "steps_2": 2 * rates[number]})
            made.add("latency", system, {"run_p50": 1000 / rates[number], "run_p99": 3000 / rates[number]})
    return made


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


def test_ratios_are_taken_round_by_round_so_that_a_slow_minute_hits_both(results: Results) -> None:
    """3, 2 and 2 times as many steps; 3, 2 and 2 times as short."""
    assert results.advantage("steps", "steps_1", "huey", MORE) == 2.0
    assert results.advantage("latency", "run_p50", "huey", LESS) == pytest.approx(2.0)
    assert results.advantage("steps", "steps_1", "Celery", MORE) is None


def test_what_is_stored_is_what_is_read(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "figures.json")
    assert Results.read(tmp_path / "figures.json") == results


def test_the_chart_is_well_formed_and_its_bars_are_as_long_as_their_medians(results: Results) -> None:
    root = ElementTree.fromstring(svg(results))
    widths = [float(bar.get("width", "0")) for bar in root.findall(".//{*}rect")]
    assert widths[0] / widths[2] == pytest.approx(1000 / 500, rel=0.01), "flowlib's and huey's steps per second"
    texts = ["".join(text.itertext()) for text in root.findall(".//{*}text")]
    assert "1,000 / 2,000" in texts


def test_a_peer_that_is_not_installed_is_told_not_measured() -> None:
    absent = System("Absent", "absent_chain", "no-such-package", (), "all", pace=1)
    assert "no-such-package is not installed" in missing(absent)


def test_a_server_that_is_not_found_is_told_with_what_would_bring_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    here = System("Here", "here_chain", "redis", (), "all", pace=1, store=RESTATE, peer=False)
    assert "npm install --global @restatedev/restate-server" in missing(here)


@pytest.mark.parametrize("folder", [".", "restate-server/node_modules/@restatedev"], ids=["beside", "within"])
def test_of_what_npm_installs_the_server_itself_is_found_not_the_script_on_path(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scope = tmp_path / "lib/node_modules/@restatedev"
    script = _executable(scope / "restate-server/lib/index.js")
    server = _executable(scope / folder / "restate-server-linux-x64/bin/restate-server")
    (tmp_path / "restate-server").symlink_to(script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_restate() == server.resolve()


def _executable(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    return path


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_says_what_its_figures_do_not_pay_for(system: System) -> None:
    assert len(system.lacks) > 10


@pytest.mark.slow
def test_what_is_measured_is_shown_and_stored_and_no_process_is_left(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    told = _bench("--only", "steps", "--only", "sending", "--system", "flowlib", "--scale", "0.002", "--repeat", "1",
                  "--json", str(file))  # fmt: skip
    _check(Results.read(file), {"steps", "sending"}, {"flowlib"}, rounds=1)
    assert re.search(r"steps/s, one process +≥ 5,000", told)


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_every_part_measures_every_system_that_is_here(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    _bench("--scale", "0.002", "--repeat", "1", "--json", str(file))
    found = Results.read(file)
    assert not found.skipped
    _check(found, {part.name for part in PARTS}, {system.name for system in SYSTEMS}, rounds=1)


def _check(found: Results, parts: set[str], systems: set[str], rounds: int) -> None:
    """Every figure of every table was measured in every round, but those that a system does not have."""
    assert found.figures.keys() == parts
    assert set().union(*found.figures.values()) == systems
    for part in PARTS:
        for system, figures in found.figures.get(part.name, {}).items():
            assert {len(values) for values in figures.values()} == {rounds}, (part.name, system)
            if system == "flowlib":
                shown = {column.figure for table in part.tables for column in table.columns}
                assert shown <= figures.keys(), part.name
    assert found.values("steps", "flowlib", "again") == [0] * rounds


@pytest.mark.slow
def test_the_profile_shows_scripts_commands_and_the_workers_python() -> None:
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
