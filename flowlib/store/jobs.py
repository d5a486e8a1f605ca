"""Transitions of a job's life, from its claim to the end of its run: whoever calls most of them holds a lease."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from typing import Any, Self

import msgpack

from flowlib.model import ErrorInfo, Memo
from flowlib.records import Claim, End, JobSpec, Lease, read_claim, text, told, unpack_memo
from flowlib.wire import Packed, command

from .events import Sent
from .link import Link, for_lua
from .recalled import Recalled, Recollection

MOST_LABELS = 1000  # that a process remembers
OTHER = "_other"  # the label of steps that have none of their own
STEP_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, "+Inf")


class JobStore(Link):
    _recollection: Recollection | None = None  # of the store of one slot

    def alone(self) -> Self:
        twin = super().alone()
        twin._recollection = Recollection()
        return twin

    def claim_job(
        self,
        worker: str,
        exec: str,
        lease_ms: int,
        app: str,
        queues: Iterable[str],
        *,
        alone: bool = True,
        rq_jobs: bool = False,
    ) -> Claim | str:
        """A job, or why there is none: `idle`, `suspended` or `foreign`; with `rq_jobs` also `ordinary`: such a job is first.

        `alone`: nothing else runs on this worker.
        """
        reply = self._call("claim_job", worker, exec, lease_ms, app, int(alone), int(rq_jobs), *queues)
        return reply.decode() if isinstance(reply, bytes) else read_claim(reply, worker, exec, self._memos)

    def adopt_job(self, worker: str, exec: str, lease_ms: int, job: str, held: str = "") -> Claim | str:
        """The lease of a job that a stock RQ worker has popped, or why not: `unknown`, `stale` or `leased`."""
        reply = self._call("adopt_job", worker, exec, lease_ms, job, held)
        return reply.decode() if isinstance(reply, bytes) else read_claim(reply, worker, exec, self._memos)

    def _memos(self, run: str, values: bytes) -> tuple[dict[str, Memo], int]:
        """All memos of a run that has many, and their bytes; `values` is how many of them are of no step."""
        recollection = self._recollection or Recollection()
        recalled = recollection.take(run)
        if recalled is None or not self._read_news(run, recalled, values):
            recalled = self._read_memos(run, values)
        recollection.keep(run, recalled)
        return recalled.memos.copy(), recalled.size

    def _read_news(self, run: str, recalled: Recalled, values: bytes) -> bool:
        reply = self._call("read_news", run, recalled.length, recalled.mark, key=self.keys.history(run))
        return reply is not None and recalled.update(reply, values)

    def _read_memos(self, run: str, values: bytes) -> Recalled:
        history, memos = self.keys.history(run), self.keys.memo(run)
        batch = [command("LLEN", history), command("LINDEX", history, -1), command("HGETALL", memos)]
        length, mark, found = self.send_all(batch)[-3:]  # what is written in between is news, later
        packed = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))  # RESP 3, or 2
        read = {text(key): unpack_memo(memo) for key, memo in packed.items()}
        return Recalled(read, sum(map(len, packed.values())), values, length, mark or b"")

    def commit_step(
        self,
        lease: Lease,
        job: str,
        step: str,
        memo: bytes,
        ended: End,
        *,
        total: int | None,
        attempt: int,
        outcome: str,
        seconds: float | None,
        label: str,
        lines: bytes,
        error: ErrorInfo | None = None,
        after: str = "",
        events: Sequence[Sent] = (),
        left: End | None = None,
        spec: JobSpec | None = None,
    ) -> Packed:
        """To be told: on its way before the function goes on (I9). Its verdict, for who wants one, is `recorded`,
        `suspended`, `fenced`, or `unrecorded`: the step `after` which it comes is not, so this one is not either.

        `job` is the run's, as far as Redis knows; `spec` that of the step if it has none yet, and `left` then how the other
        one ends. `events` go into the stream with the memo, or not at all. `total` is the bytes of all memos, None
        when other branches have some, too; `seconds` is None for what has no body: a sleep.
        """
        detail: dict[str, Any] = {"bytes": len(memo), "outcome": outcome, "seconds": seconds}
        if error is not None:
            detail["error"] = error.as_dict()
        fresh: tuple[Any, ...] = ()
        if spec is not None and left is not None:
            detail["kind"] = spec.kind
            fresh = (*left, 1000 * (seconds or 0), spec.args())
        entry = told("recorded", step, attempt, lease.worker, detail)
        metrics = None if seconds is None else self._step_metrics(lease, outcome, label, seconds)
        rest = (step, memo, total, entry, lines, *ended, job, metrics, after, tuple(events) or None, *fresh)
        return self._pack_held("commit_step", lease, for_lua(rest))

    def note_value(self, lease: Lease, key: str, memo: bytes, after: str) -> Packed:
        """As commit_step, of a value that has no job; never `suspended`."""
        return self._pack_held("note_value", lease, key, memo, after)

    def place_job(
        self, lease: Lease, job: str, recorded: str, left: End, spec: JobSpec, *, age_ms: float, losses: int
    ) -> str:
        """`placed`, `fenced` or `unrecorded`. `left` is how `job` ends, the run's so far; the new one began `age_ms` ago."""
        entry = told("claimed", spec.step, 1, lease.worker, {"kind": spec.kind, "queue": spec.queue, "in_place": True})
        return self._call_held("place_job", lease, job, recorded, *left, f"{age_ms:.3f}", losses, entry, *spec.args())

    def chain_job(
        self,
        lease: Lease,
        job: str,
        recorded: str,
        ended: End,
        spec: JobSpec,
        *,
        sleep_ms: str = "",
        until_ms: str = "",
        lines: bytes = b"",
        wait: tuple[Any, ...] = (),
    ) -> str:
        """`queued`, `scheduled`, `fenced`, `unrecorded` or `behind`; a sleep is for some ms, or until a time in ms.

        So is a `wait`, as the script takes it."""
        mode = "wait" if wait else "sleep" if sleep_ms or until_ms else "push"
        more = [for_lua(wait)] if wait else []
        return self._call_held(
            "chain_job", lease, job, recorded, *ended, mode, sleep_ms, until_ms, lines, *spec.args(), *more
        )

    def fork_run(
        self,
        lease: Lease,
        job: str,
        recorded: str,
        ended: End,
        wants: Sequence[tuple[str, JobSpec | None, float | None, float | None]],
        *,
        may_stay: bool,
        lines: bytes = b"",
    ) -> tuple[str, list[Any]]:
        """`behind` and steps and memos in turn, `stays`, which of them and is it alone, `lacking` and of which the job has
        to be said, `left`, `fenced` or `unrecorded`.

        `wants` are all steps that the function waits for, with the ms that a sleep takes, or until when in ms.
        """
        packed = for_lua(tuple((step, spec and spec.args(), ms, until) for step, spec, ms, until in wants))
        reply = self.wire.call(self._pack_held("fork_run", lease, job, recorded, *ended, int(may_stay), lines, packed))
        return reply[0].decode(), reply[1:]

    def drop_branches(self, lease: Lease, job: str, steps: Iterable[str]) -> str:
        """`dropped`, `left` (the job was for one of them) or `fenced`."""
        return self._call_held("drop_branches", lease, job, *steps)

    def open_steps(self, run: str) -> set[str]:
        return {text(step) for step in self.wire.call(command("HKEYS", self.keys.open(run)))}

    def recorded_since(self, run: str, known: int, memos: Container[str]) -> tuple[list[str], dict[str, bytes]]:
        """The steps after the first `known` that were recorded side by side, in order, and the memos that are missing."""
        steps = [text(step) for step in self.wire.call(command("LRANGE", self.keys.order(run), known, -1))]
        missing = [step for step in steps if step not in memos]
        found = self.wire.call(command("HMGET", self.keys.memo(run), *missing)) if missing else []
        return steps, {step: memo for step, memo in zip(missing, found, strict=True) if memo is not None}

    def fail_attempt(
        self,
        lease: Lease,
        job: str,
        step: str,
        error: ErrorInfo,
        *,
        level: str,
        attempt: int,
        delay_ms: int,
        outcome: str,
        seconds: float,
        label: str,
        lines: bytes,
        recorded: str = "",
    ) -> str:
        """`retrying`, `fenced` or `unrecorded`. `level` is `step`, or `function` for an error between steps."""
        packed = msgpack.packb(error.as_dict(), unicode_errors="surrogatepass")
        metrics = self._step_metrics(lease, outcome, label, seconds) if level == "step" else ()
        failure = (job, level, attempt, delay_ms, packed, outcome, f"{seconds:.6f}")
        return self._call_held("fail_attempt", lease, *failure, lines, step, recorded, *metrics)

    def finish_run(
        self,
        lease: Lease,
        job: str,
        recorded: str,
        ended: End,
        status: str,
        *,
        result: bytes = b"",
        error: ErrorInfo | None = None,
        lines: bytes = b"",
        left: Sequence[str] | None = None,
        undo: bool = True,
    ) -> Packed:
        """The verdict is `finished`, `fenced` or `unrecorded`; or `vanished STEP`, if what it has `left` open is told."""
        packed = b"" if error is None else msgpack.packb(error.as_dict(), unicode_errors="surrogatepass")
        still = b"" if left is None else for_lua(tuple(left))
        return self._pack_held(
            "finish_run", lease, job, recorded, *ended, status, result, packed, lines, still, int(undo)
        )

    def confirm_lease(self, lease: Lease, lease_ms: int) -> str:
        """`held`, for so long from now, or `fenced`."""
        return self._call_held("confirm_lease", lease, lease_ms)

    def release_job(self, lease: Lease, reason: str, *, job: str = "", delay_ms: int = 0, lines: bytes = b"") -> str:
        """Of `job`, if the run is further than what was claimed."""
        return self._call_held("release_job", lease, job or lease.job, delay_ms, reason, lines)

    def park_job(self, lease: Lease) -> str:
        """`parked` or `fenced`: nobody here knows its function."""
        return self._call_held("park_job", lease, lease.job)

    def resume_parked(self, app: str, functions: Iterable[str], at_most: int = 100) -> int:
        """How many runs go on that were parked, because there is a worker that knows these functions."""
        return int(self._call("resume_parked", app, at_most, *functions))

    def cancel_run(self, run: str, reason: str) -> tuple[str, ...]:
        """('unknown',), ('ended', status) or ('cancelled', job, worker that runs it or '')."""
        return tuple(part.decode() for part in self._call("cancel_run", run, reason, secrets.token_hex(8)))

    def settle_promise(self, run: str, step: str, memo: bytes) -> str:
        """`settled`, `unknown`, `late`, `over` or `ended`."""
        return text(self._call("settle_promise", run, step, memo, secrets.token_hex(8)))

    def retry_run(self, run: str, token: str, spec: JobSpec) -> tuple[str, ...]:
        """('retried', step that is tried again or ''), ('unknown',), ('moved',), or (its status,). `spec` is its last job."""
        return tuple(map(text, self._call("retry_run", run, token, *spec.args())))

    def replay_run(self, origin: str, run: str, spec: JobSpec, memos: Sequence[tuple[str, bytes, bytes]]) -> str:
        """`replayed`, `unknown` or `changed`. `spec` is the new run's first job; `memos` are as the script takes them."""
        return text(self._call("replay_run", origin, for_lua((run, spec.args(), memos))))

    def show_job(self, lease: Lease, job: str) -> None:
        """List a job that has been running for a moment where RQ's tools look."""
        self._call("show_job", lease.worker, lease.name, lease.exec, job, lease.queue)

    @cached_property
    def _labels(self) -> dict[tuple[str, str, str], str]:
        return {}

    @cached_property
    def _full(self) -> dict[tuple[str, str], set[str]]:
        """Functions that have all the labels they may have, and these."""
        return {}

    @cached_property
    def _step_fields(self) -> dict[tuple[tuple[str, str, str], str, int], tuple[str, str]]:
        return {}

    def _step_metrics(self, lease: Lease, outcome: str, label: str, seconds: float) -> tuple[Any, ...]:
        asked = (lease.app, lease.function, label)
        edge = bisect_left(STEP_EDGES, seconds, hi=len(STEP_EDGES) - 1)
        fields = self._step_fields.get((asked, outcome, edge))
        if fields is None:
            if len(self._step_fields) >= MOST_LABELS:  # step ids may be made of data: no two alike, for months
                for known in (self._labels, self._full, self._step_fields):
                    known.clear()
            named = self._labels.get(asked) or self._name_label(asked)
            bucket = f"{outcome}:{STEP_EDGES[edge]}"
            fields = f"attempts|{lease.function}|{bucket}|{named}", f"step_seconds|{lease.function}|sum|{named}"
            self._step_fields[asked, outcome, edge] = fields
        return (*fields, round(seconds * 1_000_000))

    def _name_label(self, asked: tuple[str, str, str]) -> str:
        app, function, label = asked
        full = self._full.get((app, function))
        if full is None:
            named, *others = map(text, self._call("name_label", *asked, key=self.keys.metrics(app)))
            if others:
                self._full[app, function] = set(others)
        else:
            named = label if label in full else OTHER
        self._labels[asked] = named
        return named
