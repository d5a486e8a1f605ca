"""What the contact import takes as a contact list, row by row. Pure: text in, contacts and reasons out."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.contacts_csv import BadRow, Contact, ListError, read_contacts, read_upload, write_contacts

HEADER = "name,email,street,city,state\r\n"
ADA = "Ada,ada@example.com,1 Main St,Boston,MA\r\n"
CONTACT = Contact("Ada", "ada@example.com", "1 Main St", "Boston", "MA")


def read(text: str) -> list[Contact | BadRow]:
    return list(read_upload(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ADA,
        HEADER + ADA.rstrip(),
        (HEADER + ADA).replace("\r\n", "\n"),
        (HEADER + ADA).replace("\r\n", "\r"),
        HEADER + "\r\n" + ADA + " , ,,,\r\n\r\n",
        " Name,EMAIL ,Street,City,State\r\n" + ADA,
        'state,phone,city,street,email,name,\r\nMA,"1,2",Boston,1 Main St,ada@example.com,Ada,\r\n',
        HEADER + " Ada , ADA@Example.com ,1 Main St,Boston, MA\r\n",
    ],
    ids=["CRLF", "no last line end", "LF", "CR", "blank lines", "header in capitals", "other columns", "blanks"],
)
def test_what_spreadsheets_make_of_a_row_is_tolerated(text: str) -> None:
    assert read(text) == [CONTACT]


def test_newlines_quotes_commas_and_every_script_survive_in_a_field() -> None:
    text = HEADER + '"Nguyễn, 明 ""Ömer""",n@example.com,"1 Main St\r\nApt 4",Boston,MA\r\n'
    assert read(text) == [Contact('Nguyễn, 明 "Ömer"', "n@example.com", "1 Main St\r\nApt 4", "Boston", "MA")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",ada@example.com,1 Main St,Boston,MA", "no name"),
        ("Ada,,1 Main St, ,MA", "no email and no city"),
        ("Ada,ada@example.com", "2 fields where the first line has 5"),
        ("Ada,ada@example.com,1 Main St,Boston,MA,x,y", "7 fields where the first line has 5"),
        ("Ada,ada at example.com,1 Main St,Boston,MA", "'ada at example.com' is no e-mail address"),
        ("Ada,ada@localhost,1 Main St,Boston,MA", "'ada@localhost' is no e-mail address"),
        ("Ada,ada@b@example.com,1 Main St,Boston,MA", "'ada@b@example.com' is no e-mail address"),
        ("Ada,ada@example.,1 Main St,Boston,MA", "'ada@example.' is no e-mail address"),
        ('Ada,"a@b.c\nBcc: d@e.f",1 Main St,Boston,MA', r"'a@b.c\nbcc: d@e.f' is no e-mail address"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(row: str, reason: str) -> None:
    assert read(HEADER + row + "\r\n" + ADA) == [BadRow(2, reason), CONTACT]


def test_a_second_row_with_the_same_address_is_bad_and_names_the_first() -> None:
    again = ADA.replace("ada@", "ADA@")
    assert read(HEADER + ADA + again) == [CONTACT, BadRow(3, "'ada@example.com' is on line 2 already")]


def test_a_bad_row_is_found_by_the_line_on_which_it_begins() -> None:
    rows = read(
        HEADER + '"Bo\r\nB",b@example.com,"1\r\n2",Boston,MA\r\n\r\n"C\r\nD",,1,Boston,MA\r\n,e@f.gh,1,Boston,MA\r\n'
    )
    assert [str(row) for row in rows if isinstance(row, BadRow)] == ["line 6: no email", "line 8: no name"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("name,email\r\n", "the first line must name each of these columns once: street, city, state"),
        (ADA, "the first line must name each of these columns once: name, email, street, city, state"),
        (HEADER.replace(",", ";"), "the first line must name each of these columns once"),
        ("email," + HEADER, "the first line must name each of these columns once: email"),
        (HEADER + ADA + '"Bob,b@example.com,1,Boston,MA\r\n' + ADA, "line 3: the row has broken quotes or no end"),
        (HEADER + ADA + '"Bob" B,b@example.com,1,Boston,MA\r\n', "line 3: the row has broken quotes or no end"),
        (HEADER + ADA + '"' + ADA * 10_000, "line 3: the row has broken quotes or no end"),
    ],
    ids=["empty", "columns", "no header", "semicolons", "doubled", "open quote", "text after quote", "huge field"],
)
def test_what_is_no_contact_list_is_refused_as_a_whole(text: str, message: str) -> None:
    with pytest.raises(ListError, match=message):
        read(text)


contacts = st.builds(Contact, *[st.text(st.characters(exclude_categories=["Cs"]))] * 6)


@given(st.lists(contacts))
def test_our_own_files_are_read_back_exactly(written: list[Contact]) -> None:
    text = io.StringIO(newline="")
    write_contacts(text, written)
    text.seek(0)
    assert list(read_contacts(text)) == written
