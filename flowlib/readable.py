"""A readable form of values, that `json.dumps` takes: for people and other tools, and never to be decoded.

Pure: knows no Redis, no RQ, no run.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from .codec import lower


def jsonable(value: object) -> Any:
    """Whatever is left of it that JSON has words for.

    >>> json.dumps(jsonable({"when": datetime(2027, 1, 1), "cents": Decimal("9.90")}))
    '{"when": "2027-01-01T00:00:00", "cents": "9.90"}'
    """
    return _json(value, ())


def _json(value: Any, above: tuple[int, ...]) -> Any:
    for kinds, show in _SHOWN:
        if isinstance(value, kinds):
            return show(value)
    if id(value) in above or len(above) > 100:
        return "…"
    above = (*above, id(value))
    if isinstance(value, (list, tuple)):
        return [_json(item, above) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_json(item, above) for item in value), key=repr)  # a set has no order: pick one
    if isinstance(value, dict):
        return {_json_key(key, above): _json(item, above) for key, item in value.items()}
    try:
        lowered = lower(value)
    except Exception:
        return repr(value)
    return _json(lowered, above)


def _json_key(key: Any, above: tuple[int, ...]) -> str:
    shown = _json(key, above)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def _show_bytes(value: bytes | bytearray | memoryview) -> str:
    data = bytes(value)
    text = data.decode("ascii", "replace")
    return repr(data) if text.isascii() and text.isprintable() else f"base64:{base64.b64encode(data).decode()}"


_SHOWN: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: _json(value.value, ())),
    ((type(None), bool), lambda value: value),
    (int, lambda value: int(value) if value.bit_length() < 10_000 else hex(value)),  # Python limits longer decimals
    (float, lambda value: float(value) if math.isfinite(value) else str(float(value))),
    (str, lambda value: value.encode("utf-8", "backslashreplace").decode()),
    ((bytes, bytearray, memoryview), _show_bytes),
    ((date, time), lambda value: value.isoformat()),
    ((timedelta, Decimal, UUID), str),
)
