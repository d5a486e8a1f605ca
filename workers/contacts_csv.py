"""Contact lists as CSV: what a good row is, and how lists are read and written. Knows no step and no neighbour.

Tolerated, since spreadsheets write it: a byte order mark, CRLF, newlines in quotes, blank lines, other columns, the
columns in any order and case. Refused: what would lose contacts silently, such as a quote that is never closed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TextIO


@dataclass(frozen=True)
class Contact:
    name: str
    email: str
    street: str
    city: str
    state: str
    zip_code: str = ""


COLUMNS = [field.name for field in fields(Contact)]
REQUIRED = [field.name for field in fields(Contact) if field.default is MISSING]
EMAIL = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;.]+")


@dataclass(frozen=True)
class BadRow:
    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class ListError(Exception):
    """The file as a whole is no contact list."""


def read_upload(text: TextIO) -> Iterator[Contact | BadRow]:
    """Every row of an uploaded file: a contact, or why it is none, by the line on which the row begins."""
    rows = csv.reader(text, strict=True)
    line = 1
    try:
        header = _read_header(rows)
        first_seen: dict[str, int] = {}
        line = rows.line_num + 1
        for values in rows:
            if any(value.strip() for value in values):
                yield _check_row(line, header, values, first_seen)
            line = rows.line_num + 1
    except UnicodeDecodeError as error:
        raise ListError(f"the file is no text in UTF-8 (after line {rows.line_num})") from error
    except csv.Error as error:
        raise ListError(f"line {line}: the row has broken quotes or no end ({error})") from error


def read_contacts(text: TextIO) -> Iterator[Contact]:
    """Read what `write_contacts` wrote."""
    return (Contact(**row) for row in csv.DictReader(text))


def write_contacts(text: TextIO, contacts: Iterable[Contact]) -> None:
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(map(asdict, contacts))


def _read_header(rows: Iterator[list[str]]) -> list[str]:
    header = [name.strip().lower() for name in next(rows, [])]
    if not header:
        raise ListError("the file is empty")
    if lacking := [name for name in REQUIRED if header.count(name) != 1]:
        raise ListError(f"the first line must name each of these columns once: {', '.join(lacking)}")
    return header


def _check_row(line: int, header: list[str], values: list[str], first_seen: dict[str, int]) -> Contact | BadRow:
    if len(values) != len(header):
        return BadRow(line, f"{len(values)} fields where the first line has {len(header)}")
    row = {name: value.strip() for name, value in zip(header, values, strict=True)}
    if missing := [name for name in REQUIRED if not row[name]]:
        return BadRow(line, f"no {' and no '.join(missing)}")
    email = row["email"] = row["email"].lower()
    if not EMAIL.fullmatch(email):
        return BadRow(line, f"{email[:80]!r} is no e-mail address")
    if first_seen.setdefault(email, line) != line:
        return BadRow(line, f"{email!r} is on line {first_seen[email]} already")
    return Contact(**{name: row[name] for name in REQUIRED})
