"""Events, runs and their ids as plain data."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from flowlib.errors import PayloadError
from flowlib.model import ENDED, RUNNING, STATUSES, UNSENT, ErrorInfo, Event, EventType, Run
from flowlib.triggers import MAX_EVENT_NAME, check_event_name
from flowlib.ulid import ulid, ulid_of

MILLISECONDS = st.integers(0, 2**48 - 1)


@dataclass(frozen=True)
class Upload:
    key: str


def test_an_event_type_makes_events_of_its_name_that_know_their_type() -> None:
    uploaded = EventType("contacts.uploaded", Upload)
    ts = datetime(2026, 1, 1, tzinfo=UTC)
    event = uploaded(Upload("list.csv"), id="upload-17", ts=ts)
    assert (event.name, event.data, event.id, event.ts, event.type) == (
        "contacts.uploaded", Upload("list.csv"), "upload-17", ts, Upload,
    )  # fmt: skip
    assert uploaded(Upload("x")) == Event("contacts.uploaded", Upload("x"), "", UNSENT)


def test_an_event_is_a_fact_and_stays_as_it_is() -> None:
    with pytest.raises(FrozenInstanceError):
        Event("a", {}).name = "b"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@given(st.text(st.characters(min_codepoint=32), min_size=1, max_size=MAX_EVENT_NAME))
def test_an_event_name_is_any_text_without_control_characters(name: str) -> None:
    assert check_event_name(name) == name


@given(
    st.just("")
    | st.text(min_size=MAX_EVENT_NAME + 1, max_size=MAX_EVENT_NAME + 9)
    | st.builds("{}{}{}".format, st.text(max_size=9), st.characters(max_codepoint=31), st.text(max_size=9))
    | st.sampled_from([None, 7, b"bytes", ["a"]])
)
def test_what_is_no_event_name_is_refused_in_one_line(name: Any) -> None:
    with pytest.raises(PayloadError, match=f"must be a string of 1 to {MAX_EVENT_NAME} characters") as refused:
        check_event_name(name)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 350


def test_a_run_is_finished_when_its_status_says_so() -> None:
    def run(status: str) -> Run:
        return Run("01", "app", "f", status, "", Event("e", {}), created=UNSENT)

    assert {status for status in STATUSES if run(status).finished} == ENDED == set(STATUSES) - {RUNNING}


@given(st.builds(ErrorInfo, st.text(), st.text(), st.text(), st.none() | st.text(), st.none() | st.integers(1)))
def test_an_error_comes_back_from_its_stored_form(error: ErrorInfo) -> None:
    assert ErrorInfo.from_dict(error.as_dict()) == error


# -- ids -----------------------------------------------------------------------------------------------------------------


@given(MILLISECONDS, st.binary(min_size=10, max_size=10))
def test_a_ulid_is_what_the_specification_says(ms: int, tail: bytes) -> None:
    text = ulid(ms, tail)
    assert ULID.from_str(text).bytes == ms.to_bytes(6, "big") + tail
    assert str(ULID.from_str(text)) == text


@given(MILLISECONDS, MILLISECONDS, st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_ulids_sort_by_time_and_then_by_their_tails(one: int, other: int, a: bytes, b: bytes) -> None:
    assert (ulid(one, a) < ulid(other, b)) == ((one, a) < (other, b))


@given(MILLISECONDS, st.lists(st.text(st.characters()), min_size=1, max_size=4))
def test_the_same_event_gives_the_same_run_id(ms: int, parts: list[str]) -> None:
    """BEHAVIOURS 118: two dispatchers of one event arrive at one run."""
    assert ulid_of(ms, *parts) == ulid_of(ms, *parts)
    assert ulid_of(ms, *parts) != ulid_of(ms, *parts, "1-0")
    assert ULID.from_str(ulid_of(ms, *parts)).milliseconds == ms


def test_a_ulid_of_today_says_its_time() -> None:
    now = time.time_ns() // 1_000_000
    assert ULID.from_str(ulid(now, bytes(10))).datetime == datetime.fromtimestamp(now / 1000, UTC)
