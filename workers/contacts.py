"""The import of an uploaded contact list: the example to copy. Owns the order of the work, and what each step does.

Rows are in `contacts_csv.py`; the object store, the address service, the CRM and the mail are in `contacts_io.py`.

The one rule: *what is inside a step is tried until it succeeds and then remembered; what is outside runs again at every
replay.* So whatever touches the world stands in a step. And since a step may be tried twice (its worker died before it
could report), each step here leaves the same world behind when it runs a second time. Lists of contacts pass from step
to step by their key in the object store: what is remembered of a run stays small, however long the list is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

from flowlib import App, Backoff, Event, EventType, Step, step_options
from workers.contacts_csv import Contact, ListError, read_contacts, read_upload, write_contacts
from workers.contacts_io import (
    insert_contacts,
    look_up_zip_codes,
    open_object,
    remove_objects,
    send_mail,
    settings,
    write_object,
)

MAX_ERRORS = 20  # as many bad rows are told to the user line by line: a mail is no place for ten thousand

log = logging.getLogger(__name__)
app = App("contacts")


@dataclass(frozen=True)
class Upload:
    key: str
    user_email: str


uploaded = EventType("api/contact_list.uploaded", Upload)


@app.function(on=uploaded, retries=4)
def import_contacts(event: Event[Upload], step: Step) -> int:
    """Import one uploaded list into the CRM; the result is the number of contacts that are new there."""
    upload, run = event.data, step.run_id

    check = step.run("validate-contents", validate_contents, upload.key)
    if not check.is_valid:
        step.run("notify-invalid", send_import_failed_email, run, upload, check)
        return 0

    step.log.info("%d contacts to import, %d rows to skip", check.good, check.bad)
    parts = step.run("split-contacts", split_contacts, run, upload.key)
    enriched = [step.run(f"enrich-addresses[{n}]", enrich_addresses, part) for n, part in enumerate(parts)]
    result = step.run("upload-enriched", upload_enriched, run, enriched)
    created = step.run("create-contacts", create_contacts, run, result)
    step.run("notify-imported", send_import_success_email, run, upload, check, created, result)
    step.run("remove-parts", remove_parts, run)
    return created


@dataclass(frozen=True)
class Check:
    """What was found in an uploaded list: the good rows, the bad ones, and the first of the errors in words."""

    is_valid: bool
    good: int
    bad: int
    errors: list[str]


def validate_contents(key: str) -> Check:
    """Read every row. A few bad rows are skipped and told; a file that is no list, or mostly bad, is refused."""
    good, bad, errors = 0, 0, list[str]()
    try:
        with open_object(key) as text:
            for row in read_upload(text):
                if isinstance(row, Contact):
                    good += 1
                else:
                    bad += 1
                    errors += [str(row)] if bad <= MAX_ERRORS else []
    except FileNotFoundError:
        return Check(False, good, bad, ["there is no such file"])
    except ListError as error:
        return Check(False, good, bad, [str(error), *errors])

    if not good + bad:
        return Check(False, good, bad, ["the file has no rows"])
    if bad > settings().max_bad_share * (good + bad):
        refusal = f"{bad} of {good + bad} rows are bad, and at most {settings().max_bad_share:.0%} may be"
        return Check(False, good, bad, [refusal, *errors])
    return Check(True, good, bad, errors)


def split_contacts(run: str, key: str) -> list[str]:
    """Cut the good rows into parts, small enough that a crash or an outage of a neighbour costs one of them only."""
    parts: list[str] = []
    with open_object(key) as text:
        good = (row for row in read_upload(text) if isinstance(row, Contact))
        while part := list(islice(good, settings().part_rows)):
            parts.append(save_contacts(f"imports/{run}/parts/{len(parts):04}.csv", part))
    return parts


@step_options(retries=8, backoff=Backoff(first=1, cap=30), timeout=5)
def enrich_addresses(part: str) -> str:
    """Give the contacts of one part their zip codes. The service is shaky: short attempts, and many of them."""
    contacts = list(load_contacts(part))
    zip_codes = look_up_zip_codes([(contact.street, contact.city, contact.state) for contact in contacts])
    log.info("%s: %d of %d addresses have a zip code", part, len(contacts) - zip_codes.count(None), len(contacts))
    found = zip(contacts, zip_codes, strict=True)
    return save_contacts(f"{part}.enriched", (replace(contact, zip_code=code or "") for contact, code in found))


def upload_enriched(run: str, parts: list[str]) -> str:
    """Join the enriched parts to the one file that the user gets back."""
    return save_contacts(f"imports/{run}/enriched.csv", chain.from_iterable(map(load_contacts, parts)))


def create_contacts(run: str, key: str) -> int:
    """Insert the contacts into the CRM, each exactly once; the number of those that this import has brought."""
    return insert_contacts(load_contacts(key), import_id=run)


def remove_parts(run: str) -> None:
    remove_objects(f"imports/{run}/parts")


def send_import_failed_email(run: str, upload: Upload, check: Check) -> None:
    send_mail(
        to=upload.user_email,
        subject=f"Your contact list {upload.key} was not imported",
        body="\n".join([f"Nothing of {upload.key} was imported:", "", *check.errors, *_unlisted(check)]),
        mail_id=f"{run}.import-failed",
    )


def send_import_success_email(run: str, upload: Upload, check: Check, created: int, result: str) -> None:
    known = check.good - created
    lines = [f"{created} contacts of {upload.key} were imported."]
    lines += [f"{known} were in the CRM before."] if known else []
    lines += [f"With their zip codes they are in {result}."]
    lines += ["", f"{check.bad} rows were skipped:", *check.errors, *_unlisted(check)] if check.bad else []
    send_mail(
        to=upload.user_email,
        subject=f"Your contact list {upload.key} was imported",
        body="\n".join(lines),
        mail_id=f"{run}.import-done",
    )


def _unlisted(check: Check) -> list[str]:
    return [f"and {check.bad - MAX_ERRORS} more"] if check.bad > MAX_ERRORS else []


def load_contacts(key: str) -> Iterator[Contact]:
    with open_object(key) as text:
        yield from read_contacts(text)


def save_contacts(key: str, contacts: Iterable[Contact]) -> str:
    with write_object(key) as text:
        write_contacts(text, contacts)
    return key
