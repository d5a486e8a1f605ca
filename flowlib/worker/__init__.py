"""The worker process: an RQ worker that claims, runs and chains, and the threads that keep it and Redis in order.

`worker.py` is the RQ worker class and its main loop, `waiter.py` waits for work without taking it, `housekeeping.py`
fires timers, reaps the dead and finds stranded runs. What happens to a step is the engine's business.
"""

from __future__ import annotations

from .worker import FlowWorker

__all__ = ["FlowWorker"]
