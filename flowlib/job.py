"""The plain job function and its callbacks: how a stock RQ worker (`rq worker --serializer json`) runs our jobs.

Slower, and RQ itself keeps RQ's books; but the memo, the fence and the chain are the same scripts. `run_step` replays to
the step, runs it and writes its memo; `chain`, the job's `on_success` callback, lets the function go on and enqueues the
next step. Both may come twice, or not at all: the memo, the lease and the reconciler make that good.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import capture
from .app import App
from .engine import Engine
from .errors import ConfigError
from .frame import LOST, Frame
from .readable import jsonable
from .records import Claim
from .store import RedisError, Store

if TYPE_CHECKING:
    import redis
    from rq.job import Job, Retry

log = logging.getLogger("flowlib.job")

LEASE_MS = 10_000
PARKED = 3600.0  # seconds: longer than any run is parked for, so that our timer comes before RQ's
_held: dict[str, str] = {}  # job -> the execution under which run_step had it, for the callback in the same process


def run_step(run: str, step: str, location: str) -> Any:
    """Run one step of a run. RQ calls this; there is no need to call it yourself."""
    from rq import get_current_job

    job = get_current_job()
    if job is None:
        raise ConfigError(f"step {step!r} of run {run}: run_step only runs as an RQ job")
    try:
        frame = _play(job, location)
    except _Parked:
        return _retry(PARKED)
    if frame is None:
        return None
    if frame.retry_in is not None:
        return _retry(frame.retry_in)
    if frame.failure is not None:
        raise frame.failure
    return jsonable(frame.result)


def chain(job: Job, _connection: redis.Redis, _result: Any, *_: Any) -> None:
    """on_success: the step is recorded; go on to the next one. Coming again, it finds nothing to do."""
    with suppress(_Parked):
        _play(job, job.args[2], only_recorded=True)


def chain_failed(job: Job, _connection: redis.Redis, *_error: Any) -> None:
    """on_failure: the step is recorded as failed; the function goes on with its StepFailed."""
    with suppress(_Parked):
        _play(job, job.args[2], only_recorded=True)


def _retry(delay: float) -> Retry:
    from rq.job import Retry

    later = math.ceil(delay) + 1 if delay else 0  # RQ's schedulers may be a second early: the timer is to come first
    return Retry(max=1_000_000, interval=later)


class _Parked(Exception):
    """This version of the app does not know the function of the run."""


def _play(job: Job, location: str, only_recorded: bool = False) -> Frame | None:
    """None when the job is not ours to run: another worker has it, or its run has gone on without it. Raises _Parked."""
    app = load(location)
    store = _store(job)
    engine = Engine(
        store, job.worker_name or "rq", lease_ms=LEASE_MS, exec_prefix="rq-", prepare=app.prepare_all, hooks=app.hooks
    )
    claim = store.adopt_job(engine.worker, engine.next_exec(), LEASE_MS, job.id, _held.pop(job.id, ""))
    if isinstance(claim, str):
        return None
    function = app.functions.get(claim.lease.function)
    if function is None:  # the job is of a newer version, or this is: whoever knows the function will have it
        what = f"{app.name}/{claim.lease.function}"
        log.warning("run %s is of %s, which %s does not know: parked", claim.lease.run, what, location)
        store.park_job(claim.lease)
        raise _Parked
    if only_recorded and claim.step not in claim.memos:
        store.release_job(claim.lease, "its step is not recorded")
        return None
    capture.install()
    _held.clear()
    _held[job.id] = claim.lease.exec
    with closing(engine), _renewed(store, engine, claim):
        frame = engine.play(function, claim, by_rq=True)
        frame.job.settle()  # the memo, which was only sent
        return frame


def _store(job: Job) -> Store:
    return Store(os.environ.get("FLOW_REDIS_URL") or "redis://", client=job.connection)


@contextmanager
def _renewed(store: Store, engine: Engine, claim: Claim) -> Iterator[None]:
    """A stock worker renews no lease, so a thread does while the step runs."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(LEASE_MS / 3000):
            try:
                _, lost = store.renew_leases(engine.worker, LEASE_MS, 480, [claim.lease.name])
            except RedisError:
                continue  # as long as it is away, nobody can take the lease
            frame = engine.frame
            if lost and frame is not None and frame.deadline is not None:
                frame.deadline.stop(LOST)

    thread = threading.Thread(target=renew, name="flow-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@cache
def load(location: str) -> App:
    """The app at MODULE:NAME. Raises ConfigError that says what is wrong with it."""
    module_name, _, attribute = location.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{location!r}: say where the app is as MODULE:APP, e.g. workers.contacts:app")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{location!r}: there is no module {error.name!r} in {Path.cwd()!s} or on the path"
            ) from None
        raise ConfigError(f"{location!r}: importing {module_name} failed: {error}") from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{location!r}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        apps = [name for name, value in vars(module).items() if isinstance(value, App)]
        hint = f": it has {', '.join(apps)}" if apps else ""
        raise ConfigError(f"{location!r}: module {module_name} has no App named {attribute!r}{hint}")
    app.location = location
    return app
