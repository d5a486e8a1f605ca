"""What a worker process holds right now, written where its supervisor can read it: memory that both have mapped.

One record per slot (a thread of the worker): the lease that it holds, and by when the body that runs has to have ended.
Written by the worker, a fraction of a microsecond a call; read by the supervisor, also while the worker is stopped or a
body of it hogs the interpreter lock. Knows nothing of Redis or of steps: a lease is a text to it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time

_WORD = struct.Struct("@Q")
_HEAD = (
    4096  # bytes before the records: a word that says whether the worker is up and how many jobs it has done; a note
)
_NOTE = struct.Struct("@H4080s")
_RECORD = struct.Struct("@QdH486sQ")  # number of the write, deadline, length of the lease, lease, the number again
_LAST = _RECORD.size - _WORD.size
_ROOM = 486
_TRIES = 100

NEVER = float("inf")


class Board:
    """`Board(slots)` in the supervisor, which hands `fd` to the worker; `Board.at(fd)` there.

    A record may be read while it is written. So each write puts its number first and last, and whoever reads looks at
    the last word first and at the first word last: only if they are the same, all between belongs to that write.
    """

    def __init__(self, slots: int, fd: int | None = None) -> None:
        self.fd = _anonymous_file(_HEAD + slots * _RECORD.size) if fd is None else fd
        self._memory = mmap.mmap(self.fd, _HEAD + slots * _RECORD.size)
        self._places = [_HEAD + slot * _RECORD.size for slot in range(slots)]
        self._writes = [_WORD.unpack_from(self._memory, place)[0] for place in self._places]
        self._leases = [b""] * slots
        for slot in range(slots):
            self.free(slot)

    @classmethod
    def at(cls, fd: int) -> Board:
        """The one whose file descriptor this process was given; it is closed: no program that a step starts is to have it."""
        board = cls((os.fstat(fd).st_size - _HEAD) // _RECORD.size, fd)
        board.close_file()
        return board

    def close_file(self) -> None:
        """Once it was handed on: the memory stays for as long as this object."""
        os.close(self.fd)

    # -- the worker's side -------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Something to tell once, before the first report."""
        encoded = text.encode()
        if len(encoded) <= 4080:
            _NOTE.pack_into(self._memory, _WORD.size, len(encoded), encoded)

    def report(self, jobs: int) -> None:
        """The worker is up, and has done so many jobs."""
        _WORD.pack_into(self._memory, 0, jobs + 1)

    def hold(self, slot: int, lease: str) -> None:
        """A job was claimed; no body runs yet."""
        encoded = lease.encode()
        self._leases[slot] = encoded if len(encoded) <= _ROOM else b""  # half a lease would be another one
        self.body(slot, 0.0)

    def body(self, slot: int, deadline: float) -> None:
        """A body runs and has to have ended by then, in time.monotonic() seconds or NEVER; 0: it has ended."""
        number = self._writes[slot] = self._writes[slot] + 1
        lease = self._leases[slot]
        _RECORD.pack_into(self._memory, self._places[slot], number, deadline, len(lease), lease, number)

    def free(self, slot: int) -> None:
        """The slot holds nothing."""
        self._leases[slot] = b""
        self.body(slot, 0.0)

    # -- the supervisor's side ---------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self._head > 0

    @property
    def noted(self) -> str:
        length, text = _NOTE.unpack_from(self._memory, _WORD.size)
        return text[:length].decode() if self.is_up else ""

    @property
    def jobs(self) -> int:
        return max(0, self._head - 1)

    def held(self) -> list[tuple[int, str, float]]:
        """Slot, lease and deadline of all that is held."""
        records = [(slot, *self._read(place)) for slot, place in enumerate(self._places)]
        return [(slot, lease.decode(), deadline) for slot, lease, deadline in records if lease]

    @property
    def _head(self) -> int:
        return int(_WORD.unpack_from(self._memory, 0)[0])

    def _read(self, place: int) -> tuple[bytes, float]:
        """Lease and deadline; nothing, if the worker was stopped or killed in the middle of a write."""
        for _ in range(_TRIES):
            (last,) = _WORD.unpack_from(self._memory, place + _LAST)
            _, deadline, length, lease, _ = _RECORD.unpack_from(self._memory, place)
            (first,) = _WORD.unpack_from(self._memory, place)
            if first == last != 0:  # pack_into begins with zeros
                return lease[:length], deadline
        return b"", 0.0


class Line:
    """A slot's own record, for whoever runs in it. Without a board, nobody reads, and nothing is written."""

    __slots__ = ("_board", "_slot")

    def __init__(self, board: Board | None = None, slot: int = 0) -> None:
        self._board, self._slot = board, slot

    def hold(self, lease: str) -> None:
        if self._board is not None:
            self._board.hold(self._slot, lease)

    def body(self, timeout: float | None) -> None:
        """One begins now, and has so many seconds."""
        if self._board is not None:
            self._board.body(self._slot, NEVER if timeout is None else time.monotonic() + timeout)

    def rest(self) -> None:
        """It has ended; the lease is still held."""
        if self._board is not None:
            self._board.body(self._slot, 0.0)

    def free(self) -> None:
        if self._board is not None:
            self._board.free(self._slot)


def _anonymous_file(size: int) -> int:
    """One without a name, which is gone with the last process that has it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("flow-board")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
