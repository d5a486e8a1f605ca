"""Every error that flowlib raises or lets the user raise, as one tree below `FlowError`.

Imports nothing of flowlib, knows no Redis and no RQ. A message says what happened, to which run and step, and what to
do about it; the same facts are attributes, so that nobody has to parse a message. `Interrupt` stands outside the tree:
it is control flow, is never exported and never logged.
"""

from __future__ import annotations

from datetime import timedelta

__all__ = [
    "ConfigError",
    "FlowError",
    "NonRetriable",
    "NondeterminismError",
    "NotFound",
    "PayloadError",
    "PromiseSettled",
    "RetryAfter",
    "RunCancelled",
    "RunEnded",
    "RunFailed",
    "RunNotFailed",
    "RunTimeout",
    "ServerError",
    "StepFailed",
    "StepTimeout",
    "WaitTimeout",
    "WorkerLost",
]

LONGEST_WAIT = 366 * 86400.0  # seconds


class FlowError(Exception):
    """The root: `except FlowError` catches whatever flowlib raises.

    >>> try:
    ...     app.runs.cancel(run_id)
    ... except FlowError as error:
    ...     print(error)
    """


class ConfigError(FlowError):
    """A wrong declaration, refused when it is imported or started.

    >>> @app.function(on=uploaded, retries=-1)   # ConfigError: function 'f': retries must be >= 0, got -1
    ... def f(event, step): ...
    """


class PayloadError(FlowError):
    """A value that cannot be stored, or stored data that does not fit the type asked for; names the path.

    >>> app.send("order.placed", data={"when": open("x")})
    Traceback (most recent call last):
    PayloadError: data.when: <class '_io.TextIOWrapper'> cannot be stored
    """


class NotFound(FlowError):
    """There is no such run, function or event.

    >>> app.runs.get("01JUNK")   # NotFound: run '01JUNK' does not exist: `flow runs` lists those that do
    """


class NondeterminismError(FlowError):
    """A replay met another operation under a known id: the function changed under a run, or decides by chance.

    >>> if random.random() < 0.5:                       # code between steps runs again at every replay:
    ...     step.run("draw", draw)                      # let a step draw, and branch on what it returned
    ... else:
    ...     step.sleep("draw", 60)
    """


class ServerError(FlowError):
    """Redis cannot be used: unreachable, a wrong version, a wrong password; the message ends with the remedy.

    >>> App("contacts", redis_url="redis://nowhere:6379").send("ping")
    Traceback (most recent call last):
    ServerError: no Redis at nowhere:6379: start one, or set FLOW_REDIS_URL
    """


class StepFailed(FlowError):
    """Raised inside the function when a step has used up its attempts: compensation is a plain `try/except`.

    >>> try:
    ...     step.run("charge", charge, order)
    ... except StepFailed as failed:
    ...     step.run("release", release_stock, order, failed.message)
    """

    def __init__(self, step: str, type: str, message: str, traceback: str = "", attempt: int | None = None) -> None:
        super().__init__(f"step {step!r} failed: {_reason(type, message)}")
        self.step = step
        self.type = type
        self.message = message
        self.traceback = traceback
        self.attempt = attempt


class StepTimeout(FlowError):
    """What is recorded for an attempt whose body outlived the step's timeout.

    >>> step.options(timeout=30).run("slow", slow)   # StepTimeout: step 'slow' ran longer than its timeout of 30 s
    """

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(
            f"step {step!r} ran longer than its timeout of {seconds:g} s: make it shorter or raise timeout="
        )
        self.step = step
        self.seconds = seconds


class NonRetriable(FlowError):
    """Raise it in a step to say that trying again is useless; the function sees a `StepFailed` at once.

    >>> def charge(card: str) -> str:
    ...     if expired(card):
    ...         raise NonRetriable("the card has expired")
    ...     return pay(card)
    """


class WaitTimeout(NonRetriable):
    """What is recorded for a step that has waited in vain: for the run that it has invoked, or for a promise.

    >>> try:
    ...     step.invoke("bill", bill, order, timeout=60)
    ... except StepFailed as failed:
    ...     failed.type   # 'WaitTimeout'
    """

    def __init__(self, step: str, seconds: float, why: str) -> None:
        super().__init__(f"step {step!r} has waited for {seconds:g} s: {why}")
        self.step = step
        self.seconds = seconds


class PromiseSettled(FlowError):
    """A promise was to be settled that has its outcome, or will have none: nothing was changed.

    >>> app.promises.resolve(token, True)   # PromiseSettled: the promise of step 'approval' of run 01J... was settled before
    """

    def __init__(self, run_id: str, step: str, why: str) -> None:
        super().__init__(f"the promise of step {step!r} of run {run_id} {why}: nothing was changed")
        self.run_id = run_id
        self.step = step


class WorkerLost(FlowError):
    """What is recorded for a step whose worker died again and again while it ran: it is not handed out any more.

    >>> step.run("parse", parse_in_c, blob)   # WorkerLost: step 'parse': its worker died 3 times while it ran: ...
    """

    def __init__(self, step: str, deaths: int) -> None:
        times = "once" if deaths == 1 else f"{deaths} times"
        super().__init__(
            f"step {step!r}: its worker died {times} while it ran: look for a lack of memory or a crash in native code"
        )
        self.step = step
        self.deaths = deaths


class RunFailed(FlowError):
    """Raised to whoever awaits the result of a run that failed; carries the error that ended it.

    >>> try:
    ...     app.runs.result(run_id)
    ... except RunFailed as failed:
    ...     print(failed.type, failed.message, failed.step, failed.traceback)
    """

    def __init__(
        self,
        run_id: str,
        type: str,
        message: str,
        traceback: str = "",
        step: str | None = None,
        attempt: int | None = None,
    ) -> None:
        where = f" in step {step!r}" if step is not None else ""
        tried = f" (attempt {attempt})" if attempt is not None else ""
        super().__init__(f"run {run_id} failed{where}{tried}: {_reason(type, message)}; see `flow show {run_id}`")
        self.run_id = run_id
        self.type = type
        self.message = message
        self.traceback = traceback
        self.step = step
        self.attempt = attempt


class RunCancelled(FlowError):
    """Raised to whoever awaits the result of a run that was cancelled.

    >>> app.runs.cancel(run_id, reason="duplicate order")
    >>> app.runs.result(run_id)   # RunCancelled: run 01J... was cancelled: duplicate order
    """

    def __init__(self, run_id: str, reason: str = "") -> None:
        super().__init__(f"run {run_id} was cancelled" + (f": {reason}" if reason else ""))
        self.run_id = run_id
        self.reason = reason


class RunTimeout(FlowError):
    """Raised to whoever awaits a result for longer than they allowed; the run itself goes on.

    >>> app.runs.result(run_id, timeout=5)   # RunTimeout: run 01J... has not ended after 5 s; it goes on: ...
    """

    def __init__(self, run_id: str, seconds: float) -> None:
        super().__init__(
            f"run {run_id} has not ended after {seconds:g} s; it goes on: ask again, or see `flow show {run_id}`"
        )
        self.run_id = run_id
        self.seconds = seconds


class RunEnded(FlowError):
    """A run that has ended was asked to change: what is finished never changes.

    >>> app.runs.cancel(run_id)   # RunEnded: run 01J... has ended already (completed): nothing was changed
    """

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"run {run_id} has ended already ({status}): nothing was changed")
        self.run_id = run_id
        self.status = status


class RunNotFailed(FlowError):
    """A run that has not failed was to be retried: there is nothing in it to be tried again.

    >>> app.runs.retry(run_id)   # RunNotFailed: run 01J... has not failed, it is completed: ...
    """

    def __init__(self, run_id: str, status: str) -> None:
        then = "it goes on by itself" if status == "running" else f"`flow replay {run_id}` makes a new run of its event"
        super().__init__(f"run {run_id} has not failed, it is {status}: {then}")
        self.run_id = run_id
        self.status = status


class RetryAfter(FlowError):
    """Raise it to choose when the next attempt comes, instead of the back-off; the number of attempts stays the same.

    >>> def call_api() -> str:
    ...     reply = http.get(URL)
    ...     if reply.status == 429:
    ...         raise RetryAfter(float(reply.headers["retry-after"]), "rate limited")
    ...     return reply.text
    """

    def __init__(self, delay: float | timedelta, message: str = "") -> None:
        seconds: object = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_WAIT:
            raise ConfigError(f"RetryAfter takes seconds >= 0 or a timedelta, at most 366 days, got {delay!r}")
        self.delay = float(seconds)
        super().__init__(message or f"try again after {self.delay:g} s")


class Interrupt(BaseException):
    """Unwinds the user's function; a `BaseException`, so that `except Exception` never eats it."""


def _reason(type: str, message: str) -> str:
    return f"{type}: {message}" if message else type
