"""How a job looks to RQ, and how an error looks in a record: forms only, nothing is decided or sent here."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import re
import traceback
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from .codec import decode
from .errors import StepFailed
from .journal import ENTRY, id_of
from .model import ErrorInfo, Memo
from .readable import jsonable
from .records import FAILED_TTL, STEP_RESULT_TTL, End, JobSpec, Lease
from .retry import Options
from .sealed import veiled

FINISHED, FAILED = "finished", "failed"
NOTHING: End = (FINISHED, base64.b64encode(b"null").decode(), STEP_RESULT_TTL)
SUPERSEDED: End = ("canceled", "", STEP_RESULT_TTL)  # it asked for another step

MAX_RESULT = 4096  # bytes of a memo that are shown to RQ's tools; larger ones are in the run's memo only
MAX_MESSAGE = 4096
MAX_TRACEBACK = 16 * 1024

_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,60}")
_OURS = (str(Path(__file__).parent), asyncio.runners.__file__, asyncio.base_events.__file__)
_GRACE = 60  # seconds by which RQ's own timeout of a job lies behind ours

RUN_STEP = "flowlib.job.run_step"


def of_entry(step: str) -> End:
    return NOTHING if step == ENTRY else SUPERSEDED


def of_memo(memo: Memo) -> End:
    """The end of the job whose step has this memo."""
    if memo.error is not None:
        return of_error(memo.error)
    if len(memo.value) > MAX_RESULT:
        shown: Any = f"<{len(memo.value)} bytes, see the run's memo>"
    else:
        shown = decode(memo.value, open=veiled)
        if shown is None:
            return NOTHING
    try:
        told = json.dumps(shown)
    except (TypeError, ValueError):
        told = json.dumps(jsonable(shown))
    return FINISHED, base64.b64encode(told.encode()).decode(), STEP_RESULT_TTL


def of_error(error: ErrorInfo) -> End:
    told = error.traceback or f"{error.type}: {error.message}"
    packed = base64.b64encode(zlib.compress(told.encode("utf-8", "backslashreplace"))).decode()
    return FAILED, packed, FAILED_TTL


def describe(error: BaseException, step: str | None, attempt: int) -> ErrorInfo:
    """An error as it is stored, without the engine's own frames. A step's failure that went through keeps its origin."""
    if isinstance(error, StepFailed):
        return ErrorInfo(error.type, error.message, error.traceback, error.step, error.attempt)
    told = traceback.TracebackException.from_exception(error)
    _drop_our_frames(told)
    trace = "".join(told.format())
    if len(trace) > MAX_TRACEBACK:
        trace = f"{trace[: MAX_TRACEBACK // 2]}\n… ({len(trace)} characters) …\n{trace[-MAX_TRACEBACK // 2 :]}"
    try:
        message = str(error)
    except Exception as broken:
        message = f"<its __str__ raised {type(broken).__name__}>"
    return ErrorInfo(type(error).__name__, message[:MAX_MESSAGE], trace, step, attempt)


def _drop_our_frames(told: traceback.TracebackException) -> None:
    left = [told]
    while left:  # a chain of causes may be longer than Python's stack
        one = left.pop()
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(_OURS)]
        left += [below for below in (one.__cause__, one.__context__, *(one.exceptions or ())) if below is not None]


def job_id(run: str, key: str) -> str:
    """RQ takes letters, digits, `_` and `-`; a step id that has anything else is shortened and told apart by a hash."""
    return run + _suffix(key)


@lru_cache(maxsize=1000)  # step ids may be made of data
def _suffix(key: str) -> str:
    if key == ENTRY:
        return ""
    occurrence, _, step_id = key.partition(":")
    if occurrence == "1" and _SAFE_ID.fullmatch(step_id):
        return f"-{step_id}"
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", step_id)[:40].strip("-")
    return f"-{readable}-{hashlib.sha1(key.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def job_spec(lease: Lease, location: str, key: str, kind: str, options: Options, queue: str) -> JobSpec:
    at = options.queue or queue
    return make_job(lease.app, lease.function, lease.run, location, key, kind, options.timeout, at)


def make_job(
    app: str, function: str, run: str, location: str, key: str, kind: str, timeout: float | None, queue: str
) -> JobSpec:
    """The RQ job of a step: a JSON envelope and a description that people can read."""
    before, after, told = _envelope(app, function, location, key)
    whole = -1 if timeout is None else math.ceil(timeout) + _GRACE
    return JobSpec(job_id(run, key), key, kind, queue, whole, f"{before}{run}{after}".encode(), told)


@lru_cache(maxsize=1000)  # step ids may be made of data
def _envelope(app: str, function: str, location: str, key: str) -> tuple[str, str, str]:
    """What is before and behind the run's id in the JSON that RQ's tools read, and the description."""
    before, after = json.dumps([RUN_STEP, None, ["\0", id_of(key), location], {}]).split("\\u0000", 1)
    told = f"{app}/{function}: {id_of(key) or 'start'}".encode("utf-8", "replace").decode()
    return before, after, told
