"""The process that hands work in: `python -m tests.benchmarks.producer MODULE`, under that system's own interpreter.

It is told on standard input, a JSON list [function, arguments] a line, what of the module to call, and answers with the
time before and after. A module that has to set something up first has a function `prepare`. So the benchmark has no part
of what a library does at import, in threads or at exit.
"""

from __future__ import annotations

import importlib
import json
import sys
import time


def main(name: str) -> None:
    module = importlib.import_module(f"tests.benchmarks.systems.{name}")
    replies = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no reply
    if prepare := getattr(module, "prepare", None):
        prepare()
    print("[]", file=replies, flush=True)
    for line in sys.stdin:
        function, arguments = json.loads(line)
        call = getattr(module, function)
        began = time.monotonic()
        call(*arguments)
        print(json.dumps([began, time.monotonic()]), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
