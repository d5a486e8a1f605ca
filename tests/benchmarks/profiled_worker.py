"""A worker process whose main loop runs under cProfile; the profile goes to the file that the command line names."""

from __future__ import annotations

import cProfile
import sys
from typing import Any

from flowlib.worker import FlowWorker
from tests.benchmarks.systems.flow_chain import app


class ProfiledWorker(FlowWorker):
    """Between birth and death: only the main thread, which claims and runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.profile = cProfile.Profile()

    def _start(self, *args: Any, **kwargs: Any) -> None:
        super()._start(*args, **kwargs)
        self.profile.enable()

    def _finish(self, *args: Any, **kwargs: Any) -> None:
        self.profile.disable()
        super()._finish(*args, **kwargs)


if __name__ == "__main__":
    worker = ProfiledWorker(app=app)
    worker.work()
    worker.profile.dump_stats(sys.argv[1])
