"""The neighbours of the contact import: object store, address service, CRM, mail. Knows no step and no run.

Each is reached with what Python brings along, `fsspec` apart, and each is told by the environment where it is.
"""

from __future__ import annotations

import json
import os
import smtplib
import sqlite3
import ssl
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from email.message import EmailMessage
from email.utils import localtime
from pathlib import Path, PurePosixPath
from typing import Any, TextIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

from fsspec.core import url_to_fs

from flowlib import NonRetriable, RetryAfter
from workers.contacts_csv import Contact


@dataclass(frozen=True)
class Settings:
    """Each of these is read from the environment under its name in capitals: `CONTACTS_STORE`, `CONTACTS_SMTP`, …"""

    store: str = ".flow/contacts"  # a folder, or a bucket: s3://contacts/lists (pip install s3fs)
    address_service: str = "http://127.0.0.1:8089"
    crm: str = ".flow/crm.sqlite3"
    smtp: str = "smtp://127.0.0.1:8025"  # with smtp://user:password@host:587 it logs in, over TLS
    sender: str = "contacts@example.com"
    part_rows: int = 500
    max_bad_share: float = 0.05  # a list with more bad rows than that is refused as a whole


def settings() -> Settings:
    """The settings of now: read when they are used, so that importing this module asks nothing of its surroundings."""
    names = {field.name: f"CONTACTS_{field.name.upper()}" for field in fields(Settings)}
    chosen = {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}
    return Settings(**{name: type(getattr(Settings, name))(value) for name, value in chosen.items()})


# Object store


def _locate(key: str) -> tuple[Any, str]:
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts or not path.parts or not key.isprintable():
        raise NonRetriable(f"{key!r} is no key of the object store")
    filesystem, root = url_to_fs(settings().store)
    return filesystem, f"{root.rstrip('/')}/{path}"


def open_object(key: str) -> TextIO:
    filesystem, path = _locate(key)
    text: TextIO = filesystem.open(path, "r", encoding="utf-8-sig", newline="")
    return text


@contextmanager
def write_object(key: str) -> Iterator[TextIO]:
    """The object appears whole or not at all: an attempt that comes too late cannot cut what a newer one wrote."""
    filesystem, path = _locate(key)
    draft = f"{path}.{uuid4().hex}"
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        with filesystem.open(draft, "w", encoding="utf-8", newline="") as text:
            yield text
        filesystem.mv(draft, path)
    except BaseException:
        if filesystem.exists(draft):
            filesystem.rm(draft)
        raise


def remove_objects(folder: str) -> None:
    filesystem, path = _locate(folder)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


# Address service


def look_up_zip_codes(addresses: list[tuple[str, str, str]]) -> list[str | None]:
    """The zip code of each (street, city, state), in order; None where the service knows no such place."""
    request = Request(
        f"{settings().address_service}/zip-codes",
        data=json.dumps({"addresses": addresses}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=4) as response:  # for each read; the whole is bounded by the step's timeout
            zip_codes: list[str | None] = json.load(response)["zip_codes"]
            return zip_codes
    except HTTPError as error:
        error.close()
        if error.code in (429, 503) and error.headers.get("Retry-After", "").isdecimal():
            raise RetryAfter(float(error.headers["Retry-After"]), f"the address service says {error.code}") from error
        if error.code < 500 and error.code not in (408, 429):
            raise NonRetriable(f"the address service refuses the request: {error.code} {error.reason}") from error
        raise


# CRM

SCHEMA = """
CREATE TABLE IF NOT EXISTS contacts (
    name TEXT NOT NULL, email TEXT PRIMARY KEY, street TEXT NOT NULL, city TEXT NOT NULL, state TEXT NOT NULL,
    zip_code TEXT NOT NULL, import_id TEXT NOT NULL
)
"""


def insert_contacts(contacts: Iterable[Contact], import_id: str) -> int:
    """Insert those that the CRM does not have; the number of those that it has by this import.

    All in one transaction, so that a crash leaves all or nothing. They are counted by the import's id and not by the
    rows inserted just now: after a crash between commit and report, the second try inserts none.
    """
    path = Path(settings().crm)
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=30)) as crm, crm:
        crm.execute(SCHEMA)
        crm.executemany(
            "INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (email) DO NOTHING",
            ((*astuple(contact), import_id) for contact in contacts),
        )
        counted: int = crm.execute("SELECT count(*) FROM contacts WHERE import_id = ?", (import_id,)).fetchone()[0]
        return counted


# Mail


def send_mail(to: str, subject: str, body: str, mail_id: str) -> None:
    """Mail goes out at least once: a crash between sending and reporting sends it again.

    Both copies then have the Message-ID that follows from `mail_id`, by which most mail systems show just one.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = settings().sender, to, subject
    mail["Date"], mail["Message-ID"] = localtime(), f"<{mail_id}@{settings().sender.rpartition('@')[2]}>"
    mail.set_content(body)
    server = urlsplit(settings().smtp)
    with smtplib.SMTP(server.hostname or "", server.port or 25, timeout=10) as smtp:
        if server.username:
            smtp.starttls(context=ssl.create_default_context())
            smtp.login(server.username, server.password or "")
        smtp.send_message(mail)
