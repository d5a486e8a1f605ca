"""Makes contact lists with the defects of real files, and knows how many good and bad rows it has put in."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from workers.demo.address_service import real_places

HEADER = ["Name", "Email", "Phone", "Street", "City", "State"]
GIVEN = ["Ada", "Grace", "Zoë", "Łukasz", "José", "Siân", "Søren", "Amélie", "Þóra", "Мария", "Yuki", "明", "Ömer"]
FAMILY = ["Lovelace", "Hopper", "O'Neil", "García", "Müller", "Ångström", "Dvořák", "Brontë", "Иванова", "田中"]
STREETS = ["Main St", "Oak Ave", "2nd St", "Martin Luther King Jr Blvd", "Río Grande Rd", 'Pier 9, "The Shed"']


@dataclass(frozen=True)
class Made:
    good: int
    bad: int


def make_contact_list(path: Path, rows: int = 10_000, *, bad_every: int = 40, seed: int = 7) -> Made:
    """Write a list as spreadsheets do: byte order mark, CRLF, newlines in quotes, blank lines; some rows are bad."""
    dice = random.Random(seed)
    places = dice.sample([(place["city"], place["state"]) for place in real_places()], 2_000)
    path.parent.mkdir(parents=True, exist_ok=True)
    bad = 0
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number in range(rows):
            row = _good_row(dice, number, places)
            if number % bad_every == bad_every - 1:
                row = _spoilt(row, bad)
                bad += 1
            writer.writerow(row)
            if number % 500 == 499:
                file.write("\r\n")
    return Made(good=rows - bad, bad=bad)


def _good_row(dice: random.Random, number: int, places: list[tuple[str, str]]) -> list[str]:
    city, state = dice.choice(places) if number % 250 else ("Atlantis", "AT")
    street = f"{dice.randint(1, 9999)} {dice.choice(STREETS)}"
    if number % 25 == 0:
        street += f"\nApt {dice.randint(1, 99)}"
    name = f" {dice.choice(GIVEN)} {dice.choice(FAMILY)}"
    return [name, f"Contact.{number}@Example.com", f"+1 555 {number:07}", street, city, state]


def _spoilt(row: list[str], number: int) -> list[str]:
    """The row with one of five defects, in turn."""
    name, email, phone, street, city, state = row
    match number % 5:
        case 0:
            return [name, "", phone, street, city, state]
        case 1:
            return [name, email.replace("@", " at "), phone, street, city, state]
        case 2:
            return [name, email, phone, street, "  ", state]
        case 3:
            return [name, email, phone]
        case _:
            return [name, "contact.0@example.com", phone, street, city, state]
