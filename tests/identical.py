"""Whether a value came back as it was: more than `==`, for which 1, True and 1.0 are the same."""

from __future__ import annotations

from typing import Any


def identical(one: Any, other: Any) -> bool:
    """Equal, of the same types all the way down, and told apart where `==` does not: nan, -0.0, fold, time zones."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(identical, one.items(), other.items()))
    if isinstance(one, (set, frozenset)):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    return repr(one) == repr(other)
