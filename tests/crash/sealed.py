"""The apps of a storm, sealed: for processes that have a ledger, beside which the values are kept."""

from __future__ import annotations

import os
from pathlib import Path

from .ledger import PATH
from .stormy import RARE, make, seal

MIDDLEWARE = seal(Path(os.environ[PATH]))

app = make(*MIDDLEWARE)
older = make(*MIDDLEWARE, without=RARE)
