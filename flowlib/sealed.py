"""Encoded values in a wrapping: encrypted, put elsewhere, or whatever a middleware makes of them; who did it is on it.

Wherever it is stored, it is one value to whoever does not open it. Pure: what opens it arrives as an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgpack
from msgpack import ExtType

from .errors import PayloadError

SEALED = 11  # among the extension types of `codec.py`

Open = Callable[[str, bytes], bytes]  # who has sealed it, and its payload, to what was encoded
Read = Callable[[int, bytes], Any]  # an extension type


class Unopened(Exception):
    """A passing trouble with opening it, such as a store that is away: no fault of what is stored."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def seal(by: str, payload: bytes) -> bytes:
    name = by.encode()
    return cast(bytes, msgpack.packb(ExtType(SEALED, bytes([len(name)]) + name + payload)))


def is_sealed(encoded: bytes) -> bool:
    """Whether all of it is; there may be something sealed inside of what is not."""
    at = {0xC7: 2, 0xC8: 3, 0xC9: 5}.get(
        encoded[0], 1 if 0xD4 <= encoded[0] <= 0xD8 else 0
    )  # msgpack: where its type is
    return at > 0 and encoded[at] == SEALED


def veiled(by: str, payload: bytes) -> bytes:
    """An `Open` for those who only look: something is there, and cannot be read."""
    return cast(bytes, msgpack.packb(f"<{len(payload)} bytes, sealed by {by}>"))


def lenient(open: Open | None) -> Open:
    """As `open`; what it can never open is shown as `veiled` does."""
    if open is None:
        return veiled

    def open_what_can_be(by: str, payload: bytes) -> bytes:
        try:
            return open(by, payload)
        except PayloadError:
            return veiled(by, payload)

    return open_what_can_be


def opening(open: Open, read: Read, unpack: Callable[[bytes, Read], Any]) -> Read:
    """As `read`, and what is sealed is unpacked too, layer by layer."""

    def read_all(code: int, data: bytes) -> Any:
        if code != SEALED:
            return read(code, data)
        try:
            clear = open(*_parts(data))
        except PayloadError:
            raise
        except Exception as error:
            raise Unopened(error) from error
        return unpack(clear, read_all)

    return read_all


def refuse(sealed: bytes) -> Any:
    raise PayloadError(f"it is sealed by {_parts(sealed)[0]!r}: that has to be in the middleware= of whoever reads it")


def _parts(sealed: bytes) -> tuple[str, bytes]:
    end = sealed[0] + 1 if sealed else 1
    return sealed[1:end].decode(errors="replace"), sealed[end:]
