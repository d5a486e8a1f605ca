"""Large values apart from Redis: in a folder, a bucket, whatever fsspec can write to. Needs fsspec."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any

from flowlib.errors import ConfigError, PayloadError

from . import Middleware

try:
    import fsspec
except ImportError as missing:
    raise ConfigError("ClaimCheck needs the package fsspec: pip install 'flowlib-rq[claim-check]'") from missing


NAME = re.compile("[0-9a-f]{64}")


class ClaimCheck(Middleware):
    """Values of more than `over` bytes are kept under `url`, and Redis has only their names there.

    Limits of sizes are those of what is in Redis. Errors and log lines stay there whatever their size, cut short: 4,096
    characters of an error's message, 16,384 and a note of its traceback. A value is named by its contents: what is written
    twice, by a step that is tried again, is there once. Nothing is deleted here: let the store forget what is older than
    your runs are kept (a rule of the bucket). Nobody ever reads half a value: who is killed as it writes to a file system
    leaves a file `….part` there that nobody asks for. `options` are those of fsspec. Raises ConfigError.

    >>> app = App("imports", middleware=[ClaimCheck("s3://bucket/flow", over=256 * 1024)])
    """

    name = "claim-check"

    def __init__(self, url: str, *, over: int = 256 * 1024, **options: Any) -> None:
        if not isinstance(over, int) or isinstance(over, bool) or over < 0:
            raise ConfigError(f"ClaimCheck: over must be a number of bytes >= 0, got {over!r}")
        self._over = over
        try:
            self._files, self._folder = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"ClaimCheck: {url!r} cannot be used: {error}") from None
        # where things can be renamed, they can be half written; an object store has one as a whole, or has it not
        self._by_halves = type(self._files).mv is not fsspec.AbstractFileSystem.mv

    def encode(self, data: bytes) -> bytes | None:
        if len(data) <= self._over:
            return None
        name = hashlib.sha256(data).hexdigest()
        place = self._place(name)
        self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
        if self._by_halves:
            part = f"{place}.{secrets.token_hex(8)}.part"
            self._files.pipe_file(part, data)
            self._rename(part, place)  # a kill before it harms no value of the same contents that is there already
        else:
            self._files.pipe_file(place, data)
        return name.encode()

    def _rename(self, part: str, place: str) -> None:
        """Some (SMB, HDFS) rename nothing to what is there already; that is as good."""
        try:
            self._files.mv(part, place)
        except Exception:
            if not self._files.exists(place):
                raise
            self._files.rm_file(part)

    def decode(self, payload: bytes) -> bytes:
        name = payload.decode("ascii", "replace")
        if not NAME.fullmatch(name):
            raise PayloadError(f"{name!r:.100} is no name of a value that is kept apart: it is damaged")
        try:
            data: bytes = self._files.cat_file(self._place(name))
        except FileNotFoundError:
            raise PayloadError(f"its value was kept at {self._place(name)}, and is not there any more") from None
        if hashlib.sha256(data).hexdigest() != name:
            raise OSError(f"{self._place(name)} is not as it was written: it may be half there")
        return data

    def _place(self, name: str) -> str:
        return f"{self._folder}/{name[:2]}/{name}"
