"""deploy/systemd: systemd itself accepts the units, and finds them well locked in."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flowlib.worker.supervisor import KILL_AFTER

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = sorted(path.name for path in UNITS.iterdir())

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_systemd_accepts_the_unit_without_a_remark(name: str, tmp_path: Path) -> None:
    """It also looks for the program, which is not at its place here: /bin/true stands in for it."""
    unit = tmp_path / name
    unit.write_text((UNITS / name).read_text().replace("=/opt/flow/bin/flow ", "=/bin/true "))
    done = analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_is_taken_over_can_reach_little_of_the_host(name: str) -> None:
    """systemd's own measure: 10 is no protection, below 2 is what it calls OK at its best."""
    done = analyze("security", "--offline=true", "--threshold=20", UNITS / name)
    assert done.returncode == 0, done.stdout


def test_a_worker_is_killed_only_after_its_grace_is_over() -> None:
    """BEHAVIOURS 130: the first SIGTERM lets running steps end."""
    unit = (UNITS / "flow-worker@.service").read_text()
    (grace,) = re.findall(r"--grace (\d+)", unit)
    (stop,) = re.findall(r"TimeoutStopSec=(\d+)", unit)
    assert int(stop) > int(grace) + KILL_AFTER
