"""The systems that are compared: one line of facts for each, and which of them can be measured here.

A further system is an entry here and a module in `systems/` with its chain of ten: `submit(runs)`, which starts each by a
call of its own, and if its library has it, `submit_together(runs)` by one call and `nap([(run, until)])` for runs that begin
at a time. Nothing here imports a peer: they live in an environment of their own, because their pins are not ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.benchmarks.postgres import find_postgres
from tests.benchmarks.restate import find_restate

REDIS, SQLITE, POSTGRES, RESTATE = "Redis", "SQLite", "PostgreSQL", "Restate"

_PEERS_PYTHON = Path(sys.prefix) / "peers" / "bin" / "python"  # `make bench` makes it
_LIST = """
import importlib.metadata as m, json
print(json.dumps({d.name.lower().replace("_", "-"): d.version for d in m.distributions()}))
"""


@dataclass(frozen=True)
class System:
    """`worker` is what one worker process is started with, behind `python`; `lacks` is what its figures do not pay for.

    `pace` is about how many steps it makes in a second, so that each drain takes as long as the others'. `naps` are the
    worker's further arguments when runs begin at a time, None where that is not measured.
    """

    name: str
    module: str
    package: str
    worker: tuple[str, ...]
    lacks: str
    pace: int
    store: str = REDIS
    peer: bool = True
    together: bool = False
    naps: tuple[str, ...] | None = ()
    alone: bool = False  # not for several worker processes
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> str:
        """Peers have an interpreter with the locked requirements of the extra `bench`; without one, ours may have them."""
        return str(_PEERS_PYTHON if self.peer and _PEERS_PYTHON.exists() else sys.executable)


def _module(name: str) -> str:
    return f"tests.benchmarks.systems.{name}"


_FLOW_WORKER = ("-m", "flowlib.cli", "worker", "--log-level", "WARNING")
_RQ_LACKS = (
    "stores a result and enqueues the next step in two moves: a crash between repeats the step or forks the chain"
)

SYSTEMS: tuple[System, ...] = (
    System(
        "flowlib", "flow_chain", "flowlib-rq", (*_FLOW_WORKER, f"{_module('flow_chain')}:app"),
        "nothing of it: memo, lease, history, metrics and RQ's own records are written for every step",
        pace=4000, peer=False, together=True,
    ),
    System(
        "flowlib, 8 threads", "flow_chain", "flowlib-rq",
        (*_FLOW_WORKER, f"{_module('flow_chain')}:app", "--threads", "8"),
        "the same, eight steps at a time", pace=4000, peer=False, together=True, naps=None,
    ),
    System(
        "flowlib async", "flow_async_chain", "flowlib-rq", (*_FLOW_WORKER, f"{_module('flow_async_chain')}:app"),
        "the same, as `async def`", pace=3000, peer=False, together=True, naps=None,
    ),
    System(
        "rq SimpleWorker", "rq_chain", "rq", ("-m", _module("rq_chain"), "SimpleWorker"),
        f"{_RQ_LACKS}; no memo, no replay; due times are whole seconds", pace=350, peer=False, together=True,
        naps=("--with-scheduler",),
    ),
    System(
        "rq Worker", "rq_chain", "rq", ("-m", _module("rq_chain"), "Worker"),
        "the same; but a step that takes its process down leaves the worker up", pace=75, peer=False, together=True,
        naps=None,
    ),
    System(
        "Celery", "celery_chain", "celery",
        ("-m", "celery", "-A", f"{_module('celery_chain')}:app", "worker", "-c", "1", "-P", "prefork", "-l", "ERROR"),
        "prefork, acks_late: a killed worker's step waits for the visibility timeout (1 h), and runs again; the rest of a "
        "chain is in its message; no memo, no replay",
        pace=800,
    ),
    System(
        "Dramatiq", "dramatiq_chain", "dramatiq", ("-m", "dramatiq", _module("dramatiq_chain"), "-p", "1", "-t", "8"),
        "eight steps at a time; a killed worker's steps are found by heartbeat (60 s) and run again; the rest of a pipeline "
        "is in its message; results are not kept, no memo, no replay",
        pace=1600,
    ),
    System(
        "huey", "huey_chain", "huey",
        ("-m", "huey.bin.huey_consumer", f"{_module('huey_chain')}.huey", "-w", "1", "-k", "process", "-q"),
        "at most once: a kill loses the running step, and with it the whole rest of the run; no memo, no replay",
        pace=2000,
    ),
    System(
        "SAQ", "saq_chain", "saq", ("-m", "saq", f"{_module('saq_chain')}.settings"),
        "ten steps at a time; the user's code enqueues the next step, so a crash repeats the step or forks the chain; a "
        "killed worker's step is swept up after 60 s; no memo, no replay; timers are looked at once a second",
        pace=2000,
    ),
    System(
        "DBOS, SQLite", "dbos_chain", "dbos", ("-m", _module("dbos_chain")),
        "nothing that flowlib gives: a memo per step, and no acknowledged step is lost even by a power loss; eight "
        "workflows at a time, on one machine; a step is a call inside its workflow, no job that any worker may take",
        pace=200, store=SQLITE, alone=True,
    ),
    System(
        "DBOS, PostgreSQL", "dbos_chain", "dbos", ("-m", _module("dbos_chain")),
        "as on SQLite, but for many machines; PostgreSQL is a second server to run", pace=400, store=POSTGRES,
    ),
    System(
        "Restate", "restate_chain", "restate-sdk", ("-m", _module("restate_chain")),
        "nothing that flowlib gives: a journal entry per step, on disk before the next one begins; all waiting runs at once; "
        "its server is a second one to run, and takes about as much CPU as the worker; it calls the worker (several need a "
        "load balancer), and for a backlog again every 0.25 s until somebody answers, which is in these figures; a step is "
        "a call inside its handler, no job that any worker may take",
        pace=1800, store=RESTATE, alone=True,
    ),
)  # fmt: skip
FLOWLIB = SYSTEMS[0]


def missing(system: System) -> str:
    """Why it cannot be measured here; empty if it can."""
    if system.package not in versions(system.python):
        return f"{system.package} is not installed: `make bench` does it, or pip install 'flowlib-rq[bench]'"
    if system.store == POSTGRES and find_postgres() is None:
        return "no PostgreSQL server is found on PATH or in /usr/lib/postgresql"
    if system.store == RESTATE and find_restate() is None:
        return "no restate-server is found on PATH: npm install --global @restatedev/restate-server"
    return ""


@cache
def versions(python: str) -> dict[str, str]:
    """Of all that this interpreter has."""
    try:
        told = subprocess.run([python, "-c", _LIST], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = json.loads(told.stdout)
    return found
