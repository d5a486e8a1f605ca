"""flowlib beside RQ's own workers, on the same machine in the same minutes. It measures; it never judges.

`profile` shows instead where flowlib's time goes: in the worker's Python, and in the server.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.measure import Figures, WorkerEnded, measure
from tests.benchmarks.peers import PEERS, Peer
from tests.benchmarks.profiling import profile

QUICK = 50  # runs
SINGLES = 50  # runs one after the other, for the latency
TIME_LIMIT = 170.0  # seconds; unless --repeat says how many, no round is begun that would not fit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["compare", "profile"], default="compare")
    parser.add_argument("--quick", action="store_true", help="one round of 50 runs, to see that it works")
    parser.add_argument("--runs", type=_count, metavar="N", help="runs sent up front (default 500; profile: 200)")
    parser.add_argument(
        "--repeat", type=_count, metavar="N", help="rounds; every system has its turn in each (default 3)"
    )
    parser.add_argument("--only", action="append", choices=[peer.name for peer in PEERS], help="may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        if options.what == "profile":
            profile(console, options.runs or (QUICK if options.quick else 200))
        else:
            peers = [peer for peer in PEERS if peer.name in (options.only or [peer.name])]
            runs = options.runs or (QUICK if options.quick else 500)
            limit = TIME_LIMIT if options.repeat is None else float("inf")
            about = report.machine()
            console.print(", ".join(f"{name} {value}" for name, value in about.items()))
            rounds = compare(console, peers, runs, options.repeat or (1 if options.quick else 3), limit)
            if options.json is not None:
                report.write_json(options.json, about, rounds)
    except WorkerEnded as error:
        console.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def compare(console: Console, peers: Sequence[Peer], runs: int, repeat: int, limit: float) -> dict[str, list[Figures]]:
    rounds: dict[str, list[Figures]] = {peer.name: [] for peer in peers}
    began = time.monotonic()
    for number in range(repeat):
        spent = time.monotonic() - began
        if number and spent * (number + 1) / number > limit:
            console.print(f"{repeat - number} of {repeat} rounds are left out: {spent:.0f} s are over")
            break
        for peer in peers:
            singles = 10 if runs <= QUICK else SINGLES if peer.share == 1 else 20
            figures = measure(peer, max(4, round(runs * peer.share)), singles)
            rounds[peer.name].append(figures)
            console.print(f"round {number + 1} of {repeat}, {peer.name}: {figures.steps:,.0f} steps/s")
    report.show(console, rounds, peers)
    return rounds


if __name__ == "__main__":
    sys.exit(main())
