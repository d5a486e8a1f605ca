"""Which Redis a command speaks to, and the app that it is told of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowlib.app import DEFAULT_URL, App
from flowlib.errors import ConfigError
from flowlib.job import load
from flowlib.middleware import Sealing
from flowlib.runs import Runs
from flowlib.server import Server
from flowlib.store import Store
from flowlib.wire import explain

DEV_FOLDER = Path(".flow")


def find_url(given: str | None, app: App | None = None) -> str:
    """What was given, else what the app says itself, FLOW_REDIS_URL, a living `flow dev` in this folder, the default."""
    own = None if app is None or app.store.url == DEFAULT_URL else app.store.url
    return given or own or os.environ.get("FLOW_REDIS_URL") or Server.find(DEV_FOLDER) or DEFAULT_URL


@contextmanager
def connected(url: str) -> Iterator[Store]:
    """A store on a server that can be used. Raises ServerError, at once: who types a command does not want to wait."""
    store = Store(url)
    store.client.set_retry(Retry(NoBackoff(), 0))
    try:
        store.check_server()
        yield store
    except redis.RedisError as error:
        raise explain(error, url) from None
    finally:
        store.close()


def runs_of(store: Store, sealing: Sealing | None = None) -> Runs:
    """The runs of all apps."""
    return Runs(lambda: store, None, {}, sealing)


def sealing_of(location: str | None) -> Sealing | None:
    """What the app at MODULE:APP, if one is named, makes of what it stores. Raises ConfigError."""
    return None if location is None else load_app(location).sealing


def load_app(location: str) -> App:
    """The app at MODULE:APP. Raises ConfigError."""
    try:
        return load(location)
    except SystemExit as error:
        raise ConfigError(f"{location!r}: importing it ended in sys.exit({error.code!r})") from error
