"""A process that dies around a certain script: right before it sends it for the first time, or right after, unheard."""

from __future__ import annotations

import os
import signal

from flowlib.testing import AFTER, BEFORE
from flowlib.wire import Wire, script


def deadly_wire(name: str, when: str) -> type[Wire]:
    class Doomed(Wire):
        def _send(self, data: bytes, mute: bool = False) -> None:
            fatal = script(name).sha in data
            if fatal and when == BEFORE:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._send(data, mute)
            if fatal and when == AFTER:
                os.kill(os.getpid(), signal.SIGKILL)

    return Doomed
