"""JSON from the command line, a file or standard input; what is wrong with it is said with its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from flowlib.errors import PayloadError

_AROUND = 20  # characters that are shown before and after the place of an error


def read_data(given: str | None) -> tuple[str, str]:
    """(text, what it is called) of a --data option: JSON itself, @FILE, or - for standard input."""
    if given is None:
        return "{}", "--data"
    if given == "-":
        return _decoded(sys.stdin.buffer.read(), "standard input"), "standard input"
    if given.startswith("@"):
        try:
            return _decoded(Path(given[1:]).read_bytes(), given[1:]), given[1:]
        except OSError as error:
            raise PayloadError(f"--data {given}: {error.strerror}") from None
    return given, "--data"


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PayloadError(f"{where} is no UTF-8: byte {error.start} is {raw[error.start]:#04x}") from None


def parse_json(text: str | bytes, where: str) -> Any:
    """Raises PayloadError that says where the text stops to be JSON."""
    if isinstance(text, bytes):
        text = _decoded(text, where)
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - _AROUND) : error.pos + _AROUND]
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise PayloadError(f"{where} is no JSON: {error.msg} at {line}column {error.colno}, near {near!r}") from None
    except ValueError as error:  # NaN and the like; a number of too many digits
        raise PayloadError(f"{where} is no JSON: {error}") from None
    except RecursionError:
        raise PayloadError(f"{where} is nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
