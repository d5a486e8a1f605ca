"""Each step of the contact import, called as the plain function that it is, with real neighbours around it.

A folder is the object store, SQLite the CRM, and HTTP and SMTP are servers on this machine.
"""

from __future__ import annotations

import csv
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import zipcodes

from flowlib import NonRetriable, RetryAfter
from workers import contacts
from workers.contacts_csv import Contact
from workers.contacts_io import Settings, open_object, settings, write_object
from workers.demo.address_service import AddressService
from workers.demo.contact_list import make_contact_list
from workers.demo.mail_server import MailServer, mail_server

HEADER = "name,email,street,city,state\n"
UPLOAD = contacts.Upload("list.csv", "ada@example.com")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the object store. A neighbour that a test does not start is not there."""
    for name, value in {
        "STORE": tmp_path / "store", "CRM": tmp_path / "data" / "crm.sqlite3",
        "ADDRESS_SERVICE": "http://127.0.0.1:1", "SMTP": "smtp://127.0.0.1:1",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"CONTACTS_{name}", str(value))
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def real_addresses() -> Iterator[str]:
    with serving(AddressService(latency=0, busy_every=0, hang_every=0)) as url:
        yield url


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with mail_server() as server:
        monkeypatch.setenv("CONTACTS_SMTP", server.url)
        yield server


def people(count: int) -> list[Contact]:
    return [Contact(f"Þóra {n}", f"{n}@example.com", f"{n} Main St", "Boston", "MA") for n in range(count)]


def rows(count: int) -> str:
    return "".join(f"Þóra {n},{n}@example.com,{n} Main St,Boston,MA\n" for n in range(count))


def stored(key: str) -> list[Contact]:
    return list(contacts.load_contacts(key))


class TestValidateContents:
    def test_a_list_with_the_defects_of_real_files_is_valid(self, folder: Path) -> None:
        made = make_contact_list(folder / "list.csv", 10_000)
        check = contacts.validate_contents("list.csv")
        assert (check.is_valid, check.good, check.bad) == (True, made.good, made.bad)
        assert made.bad > contacts.MAX_ERRORS == len(check.errors)
        assert check.errors[:2] == ["line 43: no email", "line 85: 'contact.79 at example.com' is no e-mail address"]

    @pytest.mark.parametrize(("bad", "is_valid"), [(5, True), (6, False)])
    def test_a_list_is_refused_when_more_than_the_allowed_share_is_bad(
        self, folder: Path, bad: int, is_valid: bool
    ) -> None:
        (folder / "list.csv").write_text(HEADER + rows(100 - bad) + ",b@example.com,1,Boston,MA\n" * bad)
        check = contacts.validate_contents("list.csv")
        assert (check.is_valid, check.good, check.bad) == (is_valid, 100 - bad, bad)
        if not is_valid:
            assert check.errors[0] == "6 of 100 rows are bad, and at most 5% may be"
        assert check.errors[-1] == "line 101: no name"

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            (b"", "the file is empty"),
            (b"\xef\xbb\xbf", "the file is empty"),
            (HEADER.encode(), "the file has no rows"),
            (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "the file is no text in UTF-8 (after line 0)"),
            (HEADER.encode("utf-16"), "the file is no text in UTF-8 (after line 0)"),
            (b"\x00" * 1000, "the first line must name each of these columns once: name, email, street, city, state"),
            (HEADER.encode() + "Þóra,a@b.cd,1,Boston,MA\n".encode("latin-1"), "the file is no text in UTF-8"),
            (b"name,street,city,state\n", "the first line must name each of these columns once: email"),
        ],
        ids=["empty", "only a mark", "only a header", "a picture", "UTF-16", "zeros", "Latin-1", "a column lacks"],
    )
    def test_what_is_no_list_is_invalid_and_says_why(self, folder: Path, content: bytes, error: str) -> None:
        (folder / "list.csv").write_bytes(content)
        check = contacts.validate_contents("list.csv")
        assert (check.is_valid, check.good, check.bad, len(check.errors)) == (False, 0, 0, 1)
        assert check.errors[0].startswith(error)

    def test_a_file_that_is_not_there_is_invalid(self) -> None:
        assert contacts.validate_contents("no.csv") == contacts.Check(False, 0, 0, ["there is no such file"])

    @pytest.mark.parametrize("key", ["", "../secret.csv", "/etc/passwd", "a/../../b", "a\nSubject: b"])
    def test_a_key_that_leaves_the_store_is_refused_for_good(self, key: str) -> None:
        with pytest.raises(NonRetriable, match="is no key of the object store"):
            contacts.validate_contents(key)


class TestSplitContacts:
    def test_good_rows_are_cut_into_parts_in_order(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONTACTS_PART_ROWS", "4")
        (folder / "list.csv").write_text(HEADER + ",,,,x\n" + rows(10), "utf-8-sig")
        parts = contacts.split_contacts("run-1", "list.csv")
        assert parts == [f"imports/run-1/parts/000{n}.csv" for n in range(3)]
        assert [stored(part) for part in parts] == [people(10)[:4], people(10)[4:8], people(10)[8:]]

    def test_split_twice_the_parts_are_the_same(self, folder: Path) -> None:
        make_contact_list(folder / "list.csv", 1_200)
        once = {part: stored(part) for part in contacts.split_contacts("run-1", "list.csv")}
        assert once == {part: stored(part) for part in contacts.split_contacts("run-1", "list.csv")}
        assert [len(part) for part in once.values()] == [500, 500, 170]


class TestEnrichAddresses:
    def test_every_contact_gets_a_zip_code_of_its_city(
        self, real_addresses: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONTACTS_ADDRESS_SERVICE", real_addresses)
        nowhere = Contact("N. N.", "n@example.com", "1 Main St", "Atlantis", "AT")
        part = contacts.save_contacts("part.csv", [*people(50), nowhere])
        *enriched, last = stored(contacts.enrich_addresses(part))
        assert last == nowhere
        assert [contact.email for contact in enriched] == [contact.email for contact in people(50)]
        assert len({contact.zip_code for contact in enriched}) > 5
        for contact in enriched:
            (place,) = zipcodes.matching(contact.zip_code)  # type: ignore[no-untyped-call]
            assert (place["city"], place["state"]) == ("Boston", "MA")

    @pytest.mark.parametrize(
        ("status", "headers", "body", "error"),
        [
            (503, {}, "{}", HTTPError),
            (503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, "{}", HTTPError),
            (500, {}, "{}", HTTPError),
            (429, {}, "{}", HTTPError),
            (408, {}, "{}", HTTPError),
            (200, {}, "<html>login</html>", ValueError),
            (200, {}, '{"zip_codes": ["02101"]}', ValueError),
        ],
    )
    def test_what_may_get_better_is_an_error_to_be_tried_again(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], body: str,
        error: type[Exception],
    ) -> None:  # fmt: skip
        part = contacts.save_contacts("part.csv", people(2))
        with replying(monkeypatch, status, headers, body), pytest.raises(error):
            contacts.enrich_addresses(part)
        assert [file.name for file in folder.iterdir()] == ["part.csv"], "a failed attempt leaves nothing behind"

    def test_a_service_that_says_when_to_come_back_is_obeyed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        part = contacts.save_contacts("part.csv", people(2))
        with replying(monkeypatch, 503, {"Retry-After": "7"}, "{}"), pytest.raises(RetryAfter) as raised:
            contacts.enrich_addresses(part)
        assert raised.value.delay == 7

    def test_a_request_that_the_service_refuses_is_not_tried_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        part = contacts.save_contacts("part.csv", people(2))
        with replying(monkeypatch, 401, {}, "{}"), pytest.raises(NonRetriable, match="401"):
            contacts.enrich_addresses(part)

    def test_a_service_that_is_not_there_is_tried_again(self) -> None:
        part = contacts.save_contacts("part.csv", people(2))
        with pytest.raises(URLError, match="refused"):
            contacts.enrich_addresses(part)


@contextmanager
def replying(monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], body: str) -> Iterator[None]:
    """An address service with one answer to everything."""

    class Reply(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert asked == {"addresses": [[f"{n} Main St", "Boston", "MA"] for n in range(2)]}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Reply)) as url:
        monkeypatch.setenv("CONTACTS_ADDRESS_SERVICE", url)
        yield


class TestUploadEnriched:
    def test_the_parts_become_one_file_in_order(self, folder: Path) -> None:
        parts = [contacts.save_contacts(f"{n}.csv", people(6)[n : n + 2]) for n in (0, 2, 4)]
        key = contacts.upload_enriched("run-1", parts)
        assert stored(key) == people(6)
        with (folder / key).open(newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) == 7, "one header"

    def test_an_object_appears_whole_or_not_at_all(self, folder: Path) -> None:
        contacts.save_contacts("a/list.csv", people(3))
        with pytest.raises(TypeError), write_object("a/list.csv") as text:
            text.writelines(["half a ro", None])  # type: ignore[list-item]
        assert stored("a/list.csv") == people(3)
        assert [file.name for file in (folder / "a").iterdir()] == ["list.csv"]

    def test_a_reader_is_not_disturbed_by_an_attempt_that_comes_too_late(self) -> None:
        contacts.save_contacts("list.csv", people(3))
        with open_object("list.csv") as text, write_object("list.csv") as late:
            late.write("half a ro")
            assert text.read().count("\n") == 4

    def test_parts_are_removed_and_the_result_stays(self, folder: Path) -> None:
        (folder / "list.csv").write_text(HEADER + rows(3))
        key = contacts.upload_enriched("run-1", contacts.split_contacts("run-1", "list.csv"))
        contacts.remove_parts("run-1")
        contacts.remove_parts("run-1")
        assert sorted(file.name for file in folder.rglob("*.csv")) == ["enriched.csv", "list.csv"]
        assert stored(key) == people(3)


def crm(query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(settings().crm)) as db:
        return db.execute(query).fetchall()


class TestCreateContacts:
    def test_every_contact_is_inserted_once_though_the_step_is_tried_twice(self) -> None:
        key = contacts.save_contacts("list.csv", people(700))
        assert [contacts.create_contacts("run-1", key) for _ in range(2)] == [700, 700]
        assert crm("SELECT count(*), count(DISTINCT email) FROM contacts") == [(700, 700)]
        assert crm("SELECT name, street, city, state, import_id FROM contacts WHERE email = '7@example.com'") == [
            ("Þóra 7", "7 Main St", "Boston", "MA", "run-1")
        ]

    def test_two_attempts_at_once_insert_every_contact_once(self) -> None:
        key = contacts.save_contacts("list.csv", people(2_000))
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(contacts.create_contacts, ["run-1"] * 4, [key] * 4)) == [2_000] * 4
        assert crm("SELECT count(*) FROM contacts") == [(2_000,)]

    def test_an_attempt_that_dies_in_the_middle_leaves_nothing(self, folder: Path) -> None:
        key = contacts.save_contacts("list.csv", people(700))
        whole = (folder / key).read_bytes()
        (folder / key).write_bytes(whole[:20_000] + b"\xff")
        with pytest.raises(UnicodeDecodeError):
            contacts.create_contacts("run-1", key)
        assert crm("SELECT count(*) FROM contacts") == [(0,)]
        (folder / key).write_bytes(whole)
        assert contacts.create_contacts("run-1", key) == 700

    def test_contacts_of_an_earlier_import_stay_and_are_not_counted(self) -> None:
        contacts.create_contacts("run-1", contacts.save_contacts("a.csv", people(5)))
        assert contacts.create_contacts("run-2", contacts.save_contacts("b.csv", people(8))) == 3
        assert crm("SELECT import_id, count(*) FROM contacts GROUP BY 1") == [("run-1", 5), ("run-2", 3)]


class TestMails:
    def test_the_user_of_a_refused_list_is_told_why(self, mails: MailServer) -> None:
        check = contacts.Check(False, 10, 30, ["30 of 40 rows are bad", *[f"line {n}: no name" for n in range(20)]])
        contacts.send_import_failed_email("run-1", UPLOAD, check)
        (mail,) = mails.mails
        assert (mail["To"], mail["Subject"]) == ("ada@example.com", "Your contact list list.csv was not imported")
        text = mail.get_content().splitlines()
        assert text[0] == "Nothing of list.csv was imported:"
        assert text[2:4] == ["30 of 40 rows are bad", "line 0: no name"]
        assert text[-1] == "and 10 more"

    def test_the_user_of_an_imported_list_is_told_the_numbers_and_what_was_skipped(self, mails: MailServer) -> None:
        check = contacts.Check(True, 100, 1, ["line 7: no name"])
        contacts.send_import_success_email("run-1", UPLOAD, check, 90, "imports/run-1/enriched.csv")
        assert mails.mails[0]["Subject"] == "Your contact list list.csv was imported"
        assert mails.mails[0].get_content().splitlines() == [
            "90 contacts of list.csv were imported.",
            "10 were in the CRM before.",
            "With their zip codes they are in imports/run-1/enriched.csv.",
            "",
            "1 rows were skipped:",
            "line 7: no name",
        ]

    def test_a_mail_sent_twice_has_one_message_id_and_another_runs_mail_another(self, mails: MailServer) -> None:
        for run in ("run-1", "run-1", "run-2"):
            contacts.send_import_failed_email(run, UPLOAD, contacts.Check(False, 0, 0, ["the file is empty"]))
        first, second, third = (mail["Message-ID"] for mail in mails.mails)
        assert first == second == "<run-1.import-failed@example.com>"
        assert third != first

    def test_an_address_cannot_smuggle_a_header_in(self, mails: MailServer) -> None:
        with pytest.raises(ValueError, match="linefeed"):
            contacts.send_import_failed_email(
                "run-1", contacts.Upload("list.csv", "a@b.cd\nBcc: e@f.gh"), contacts.Check(False, 0, 0, [])
            )
        assert not mails.mails


class TestSettings:
    def test_each_setting_is_read_from_the_environment_with_its_type(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("STORE", "CRM", "ADDRESS_SERVICE", "SMTP"):
            monkeypatch.delenv(f"CONTACTS_{name}")
        assert settings() == Settings()
        monkeypatch.setenv("CONTACTS_STORE", "s3://bucket/lists")
        monkeypatch.setenv("CONTACTS_PART_ROWS", "20")
        monkeypatch.setenv("CONTACTS_MAX_BAD_SHARE", "0.5")
        assert settings() == Settings(store="s3://bucket/lists", part_rows=20, max_bad_share=0.5)
