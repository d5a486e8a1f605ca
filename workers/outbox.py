"""Where the examples put what they send: a file for each message in the folder $OUTBOX. Put your own mail or payment here.

A message that is sent again, because its step was tried twice, is the same file: that is what makes the step safe.
"""

from __future__ import annotations

import os
from pathlib import Path


def deliver(key: str, to: str, text: str) -> None:
    """Send a message; `key` says which one it is, as an idempotency key does for a mail or payment provider."""
    folder = Path(os.environ.get("OUTBOX", "outbox"))
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{key}.{os.getpid()}"
    new.write_text(f"{to}: {text}\n", encoding="utf-8")
    new.replace(folder / key)
