"""What was measured, on which machine: kept by part, system and figure, written to and read from one JSON file."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from flowlib.server import Server
from tests.benchmarks import postgres, restate
from tests.benchmarks.parts import MORE
from tests.benchmarks.roster import FLOWLIB, SYSTEMS, versions


@dataclass
class Results:
    """`figures[part][system][figure]` has a value of each round, in order, so that ratios are taken round by round."""

    machine: dict[str, Any]
    options: dict[str, Any]
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="minutes"))
    skipped: dict[str, str] = field(default_factory=dict)
    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, part: str, system: str, found: dict[str, float]) -> None:
        kept = self.figures.setdefault(part, {}).setdefault(system, {})
        for name, value in found.items():
            kept.setdefault(name, []).append(value)

    def values(self, part: str, system: str, figure: str) -> list[float]:
        return self.figures.get(part, {}).get(system, {}).get(figure, [])

    def median(self, part: str, system: str, figure: str) -> float | None:
        values = self.values(part, system, figure)
        return median(values) if values else None

    def advantage(self, part: str, figure: str, system: str, better: str) -> float | None:
        """How many times as good as this system flowlib is: the median of the rounds' ratios."""
        ours, theirs = self.values(part, FLOWLIB.name, figure), self.values(part, system, figure)
        ratios = [a / b if better == MORE else b / a for a, b in zip(ours, theirs, strict=False)]
        return median(ratios) if ratios else None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text()))


def machine() -> dict[str, Any]:
    with Server.start() as server, server.client() as client:
        info = client.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return {
        "cores": os.cpu_count() or 0,
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "server": f"{name} {info.get('valkey_version') or info['redis_version']}, appendfsync everysec, TCP",
        "postgresql": postgres.version(),
        "restate": restate.version(),
        "packages": _packages(),
        "load": round(os.getloadavg()[0], 2),
    }


def _packages() -> dict[str, str]:
    """Of each system, and the redis-py that it speaks through."""
    found = {}
    for system in SYSTEMS:
        theirs = versions(system.python)
        if system.package in theirs:
            found[system.package] = f"{theirs[system.package]} (redis-py {theirs.get('redis', 'none')})"
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
