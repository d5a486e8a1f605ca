"""flowlib beside its peers, on the same machine in the same minutes. It measures and says; it asserts nothing.

`profile` shows instead where flowlib's time goes. `show FILE` prints a stored result, `markdown FILE` what the README has of
it, `chart FILE` draws it.
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
from tests.benchmarks.bench import Broken
from tests.benchmarks.chart import draw
from tests.benchmarks.markdown import markdown
from tests.benchmarks.parts import PARTS, Part
from tests.benchmarks.profiling import profile
from tests.benchmarks.results import Results, machine
from tests.benchmarks.roster import FLOWLIB, SYSTEMS, System, missing

QUICK = 0.03  # of all counts, in one round
PROFILED_RUNS = 200
STORED = ["show", "markdown", "chart"]  # what is to be done with a stored result


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    if options.what in STORED and (options.file is None or not options.file.is_file()):
        parser.error(f"{options.what} needs a stored result, as --json FILE writes it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 128)
    try:
        match options.what:
            case "profile":
                profile(console, options.runs)
            case "show":
                report.show(console, Results.read(options.file))
            case "markdown":
                print(markdown(Results.read(options.file)))
            case "chart":
                print(draw(options.file))
            case _:
                _run(console, options)
    except Broken as error:
        console.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["run", "profile", *STORED], default="run")
    parser.add_argument("file", nargs="?", type=Path, help="a stored result, for show, markdown and chart")
    parser.add_argument("--quick", action="store_true", help="one round of everything in small, to see that it works")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="X times all counts (default 1)")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds; every system has its turn in each")
    parser.add_argument(
        "--only", action="append", choices=[part.name for part in PARTS], help="a part; may be given again"
    )
    parser.add_argument(
        "--system", action="append", choices=[s.name for s in SYSTEMS], metavar="NAME",
        help=f"may be given again; {', '.join(s.name for s in SYSTEMS)}",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="store every figure there")
    parser.add_argument("--runs", type=int, default=PROFILED_RUNS, metavar="N", help="for profile")
    return parser


def _run(console: Console, options: argparse.Namespace) -> None:
    scale = QUICK if options.quick else options.scale
    said = {"rounds": options.repeat or (1 if options.quick else "default"), "scale": scale}
    results = Results(machine(), said)
    systems = [system for system in SYSTEMS if system.name in (options.system or [system.name])]
    for system in systems:
        if why := missing(system):
            results.skipped[system.name] = why
            console.print(f"{system.name} is left out: {why}", markup=False)
    chosen = [part for part in PARTS if part.name in (options.only or [part.name])]
    most = options.repeat or (1 if options.quick else max(part.rounds for part in PARTS))
    for turn in range(most):
        for part in chosen:
            if turn < (options.repeat or part.rounds):
                _measure(console, results, part, [s for s in part.systems if s in systems], scale, turn)
                if options.json is not None:  # an hour of measuring is not to be lost with its last minute
                    results.write(options.json)
    report.show(console, results)


def _measure(
    console: Console, results: Results, part: Part, systems: Sequence[System], scale: float, turn: int
) -> None:
    """One round of one part. A peer that fails is left out from then on; if flowlib does, that is an error."""
    for system in systems:
        if system.name in results.skipped:
            continue
        began = time.monotonic()
        try:
            found = part.measure(system, scale)
        except (Broken, OSError) as error:
            if system.package == FLOWLIB.package:
                raise
            results.skipped[system.name] = str(error)
            console.print(f"{system.name} is left out: {error}", markup=False)
            continue
        results.add(part.name, system.name, found)
        first = next(iter(part.tables[0].columns))
        console.print(
            f"round {turn + 1}, {part.name}, {system.name}: {first.heading.replace(chr(10), ' ')} "
            f"{report.number(found[first.figure])} ({time.monotonic() - began:.0f} s)",
            markup=False,
        )


if __name__ == "__main__":
    sys.exit(main())
