"""Encryption of all that an app stores of its data: events, what steps and functions return. Needs `flowlib-rq[crypto]`."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping

from flowlib.errors import ConfigError, PayloadError

from . import Middleware

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as missing:
    raise ConfigError("Encryption needs the package cryptography: pip install 'flowlib-rq[crypto]'") from missing

NONCE = 12  # bytes


class Encryption(Middleware):
    """AES-GCM with keys by name: the first encrypts, all of them decrypt, so that a key is replaced by putting another one
    before it. `decrypt_only` reads what is encrypted, and stores what is new in clear: the way out.

    A key has 16, 24 or 32 bytes, or is the base64 of so many. What was stored in clear before stays readable. Names of
    events and steps, errors, log lines and the fields that waits match by are not encrypted. Raises ConfigError.

    >>> app = App("orders", middleware=[Encryption({"2026-11": os.environ["FLOW_KEY"], "2025": old})])
    """

    name = "aes-gcm"

    def __init__(self, keys: Mapping[str, bytes | str], *, decrypt_only: bool = False) -> None:
        if not keys:
            raise ConfigError("Encryption: give it at least one key, by its name")
        self._keys = {name: AESGCM(_key(name, key)) for name, key in keys.items()}
        self._current = None if decrypt_only else next(iter(keys))

    def __repr__(self) -> str:
        return f"Encryption({', '.join(self._keys)})"

    def encode(self, data: bytes) -> bytes | None:
        if self._current is None:
            return None
        name, nonce = self._current.encode(), os.urandom(NONCE)
        return bytes([len(name)]) + name + nonce + self._keys[self._current].encrypt(nonce, data, name)

    def decode(self, payload: bytes) -> bytes:
        end = payload[0] + 1 if payload else 1
        name, nonce, text = payload[1:end], payload[end : end + NONCE], payload[end + NONCE :]
        named = name.decode(errors="replace")
        key = self._keys.get(named)
        if key is None:
            known = ", ".join(map(repr, self._keys))
            raise PayloadError(f"it is encrypted with the key {named!r}, and there is only {known}")
        try:
            return key.decrypt(nonce, text, name)
        except (InvalidTag, ValueError):  # the latter of what is cut off
            raise PayloadError(
                f"it cannot be decrypted: the key {named!r} is another one now, or it is damaged"
            ) from None


def _key(name: str, key: bytes | str) -> bytes:
    """Says nothing of the key itself."""
    if not isinstance(name, str) or not name or len(name.encode()) > 100:
        raise ConfigError(f"Encryption: a key's name must be a string of 1 to 100 characters, got {name!r:.40}")
    try:
        raw = base64.b64decode(key, validate=True) if isinstance(key, str) else bytes(key)
    except (binascii.Error, ValueError, TypeError):
        raise ConfigError(f"Encryption: key {name!r} is neither bytes nor base64") from None
    if len(raw) not in (16, 24, 32):
        raise ConfigError(f"Encryption: key {name!r} has {len(raw)} bytes: it must have 16, 24 or 32")
    return raw
