"""Bodies of steps that note in the ledger what they do: one succeeds, one at its second try, one never."""

from __future__ import annotations

from flowlib import AsyncStep, NonRetriable, Step

from .ledger import noted


def say(step: Step | AsyncStep, word: str) -> str:
    with noted(step, word):
        return word


def say_at_second_try(step: Step, word: str) -> str:
    with noted(step, word):
        if step.attempt == 1:
            raise ConnectionError("the first try fails")
        return word


def refuse(step: Step, word: str) -> str:
    with noted(step, word):
        raise NonRetriable(f"{word} failed")
