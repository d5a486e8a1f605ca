"""Restate: a service whose handler runs the ten steps, each with an entry in the server's journal.

`python -m tests.benchmarks.systems.restate_chain` is a worker: it listens, and the server calls it.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, urlsplit

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config
from restate.server import install_shutdown_hook

from tests.benchmarks.chain import STEPS, start_of, url
from tests.benchmarks.chain import advance as body

# The server calls while no worker is there, too: so often that one who comes is soon busy, so seldom that it costs little.
AGAIN = restate.InvocationRetryPolicy(
    initial_interval=timedelta(seconds=0.25), exponentiation_factor=1.0, max_attempts=1_000_000
)

service = restate.Service("Bench", invocation_retry_policy=AGAIN)


async def advance(previous: dict[str, Any]) -> dict[str, Any]:
    return body(previous)  # as a plain function it would have a thread for each step


@service.handler()
async def chain_of_ten(context: restate.Context, start: dict[str, Any]) -> int:
    value = start
    for _ in range(STEPS):
        value = await context.run_typed("advance", advance, restate.RunOptions(), value)
    return len(value)


@service.handler()
async def wake(context: restate.Context, start: dict[str, Any]) -> None:
    await context.run_typed("wake", advance, restate.RunOptions(), start)


def submit(runs: Sequence[int]) -> None:
    for run in runs:
        _post(_ingress(), "/Bench/chain_of_ten/send", start_of(run))


def nap(naps: Sequence[tuple[int, float]]) -> None:
    for run, until in naps:
        delay = max(0, round((until - time.time()) * 1000))
        _post(_ingress(), f"/Bench/wake/send?delay={delay}ms", start_of(run))


def prepare() -> None:
    """The server takes no run of a service that it does not know: it asks at the workers' address, where nobody may be yet."""
    asyncio.run(_register())


async def _register() -> None:
    done = asyncio.Event()
    listening = _listening()
    answering = asyncio.create_task(_serve(listening, done))
    deployment = {"uri": f"http://127.0.0.1:{_port('workers')}", "force": True}
    with contextlib.closing(HTTPConnection("127.0.0.1", _port("admin"))) as admin:
        await asyncio.to_thread(_post, admin, "/deployments", deployment)
    done.set()
    await answering


def work() -> None:
    asyncio.run(_work())


async def _work() -> None:
    stop = asyncio.Event()
    install_shutdown_hook(asyncio.get_running_loop(), stop.set)  # the library's own would replace hypercorn's
    await _serve(_listening(), stop)


async def _serve(listening: socket.socket, stop: asyncio.Event) -> None:
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.loglevel = "WARNING"
    await serve(restate.app([service]), config, shutdown_trigger=stop.wait)


def _listening() -> socket.socket:
    """A worker may be there already: then the kernel deals the server's connections out."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", _port("workers")))
    listening.listen(128)
    return listening


def _post(server: HTTPConnection, path: str, value: Any) -> None:
    server.request("POST", path, json.dumps(value), {"content-type": "application/json"})
    with server.getresponse() as response:
        said = response.read()
        if response.status >= 300:
            raise OSError(f"{path}: {response.status} {said.decode()}")


@cache
def _ingress() -> HTTPConnection:
    return HTTPConnection(urlsplit(url()).netloc)


def _port(name: str) -> int:
    return int(parse_qs(urlsplit(url()).query)[name][0])


if __name__ == "__main__":
    work()
