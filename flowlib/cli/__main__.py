"""`python -m flowlib.cli` is `flow`, for where the script is not on PATH."""

from __future__ import annotations

from . import main

main()
