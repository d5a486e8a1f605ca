"""ULIDs: 26 letters and digits that sort by time. Pure: the time and the randomness arrive as arguments."""

from __future__ import annotations

import hashlib

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]  # two digits at once take half the time


def ulid(ms: int, tail: bytes) -> str:
    """The ULID of a time in ms since the epoch and of 10 bytes.

    >>> ulid(1_700_000_000_000, bytes(10))
    '01HF7YAT000000000000000000'
    """
    number = (ms << 80) | int.from_bytes(tail[:10])
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def ulid_of(ms: int, *parts: str) -> str:
    """The same parts and time give the same ULID, so that a redelivered event finds the run that it started."""
    return ulid(ms, hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest())
