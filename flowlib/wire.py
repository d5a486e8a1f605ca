"""One connection to Redis for one thread: scripts go out, replies come back, and trouble is waited out.

A command may be *posted*: it is sent at once, and its reply is read with that of the next `call`. Every script is
idempotent, or told that it comes again, so whatever was not answered (connection cut, Redis restarted, script cache
empty, memory full) is sent again, in order, until a verdict comes or `patience` ends.

Or it is *told*: sent at once, and Redis says nothing to it. So no reply lies unread in the socket while further commands
are on their way: the kernel of a process that is killed would drop those. That they arrived is shown by what follows.

Knows nothing of runs or steps.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from .address import shown
from .assembly import assemble
from .errors import ServerError

log = logging.getLogger("flowlib")

FOREVER = float("inf")
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 1.0
_MOMENT = 1.0  # seconds
# Trouble that passes by itself. redis-py takes the code off a text for which it has a class, and leaves it on others.
_PASSING = (ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_PASSING_CODES = ("BUSY", "MISCONF", "NOREPLICAS", "NOTBUSY", "Script killed")

Packed = tuple[bytes, "Script | None"]

_REPLY_ON = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n"
_REPLY_OFF = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n"


def _pack_all(args: tuple[Any, ...]) -> bytes:
    packed = []
    for arg in args:
        if type(arg) is not bytes:
            arg = arg.encode("utf-8", "surrogatepass") if type(arg) is str else str(arg).encode()
        packed.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(packed)


class PackedArgs:
    """Arguments in the form in which they travel, to be used again and again."""

    __slots__ = ("count", "packed")

    def __init__(self, *args: Any) -> None:
        self.count = len(args)
        self.packed = _pack_all(args)


NOTHING = PackedArgs()


class Script:
    """A `.lua` file with what it uses of the libraries that its `--#include` line names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = assemble(name)
        self.sha = hashlib.sha1(self.source).hexdigest().encode()
        self._head = b"$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n" % self.sha

    def pack(self, head: PackedArgs, args: tuple[Any, ...], more: PackedArgs = NOTHING) -> Packed:
        """`head` is the key and the arguments that all calls begin with, `more` those that some do: packed once."""
        count = head.count + more.count + len(args) + 3
        return b"*%d\r\n%b%b%b%b" % (count, self._head, head.packed, more.packed, _pack_all(args)), self


@cache
def script(name: str) -> Script:
    return Script(name)


def command(*args: Any) -> Packed:
    """Any other command; it has to be one that may be sent twice."""
    return b"*%d\r\n%s" % (len(args), _pack_all(args)), None


class Wire:
    """Not thread-safe: one per thread. `give_up` is asked between tries; True ends the waiting with ConnectionError."""

    def __init__(
        self,
        pool: redis.ConnectionPool,
        *,
        patience: float = FOREVER,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool = pool
        self._patience = patience
        self._give_up = give_up
        self.pid = os.getpid()
        self._connection: Any = None
        self._unanswered: list[Packed] = []
        self._listeners: list[Callable[[Any], None]] = []  # of the first of these: what was posted
        self._muted = self._owes_ok = False
        self._may_mute: bool | None = None  # not known yet
        self._known: set[Script] = set()  # scripts that this connection's server has answered
        self._heard = 0.0
        self._instead: Callable[[], Packed] | None = None

    def tell(self, packed: Packed) -> bool:
        """Send, and want no reply. False: it was not sent, because it is in doubt whether the server will take it.

        That is when the connection has been silent for a moment (the server may be gone), for a script that it has not
        answered before (it may not know it), and where replies cannot be turned off. So what is told is stored before
        the caller goes on, but for a server that dies within that moment.
        """
        if self._in_doubt(packed) or self._unanswered:
            return False
        try:
            if self._may_mute is None:
                self._may_mute = self._try_to_mute()
            if self._may_mute:
                self._send(packed[0], mute=True)
            return self._may_mute
        except (ConnectionError, TimeoutError):
            self.close()
            return False

    def post(self, packed: Packed, heard: Callable[[Any], None]) -> None:
        """Send now; `heard` is given the reply, with the next command."""
        if not self._in_doubt(packed):
            try:
                self._send(packed[0])
                self._unanswered.append(packed)
                self._listeners.append(heard)
                return
            except (ConnectionError, TimeoutError):
                self.close()
        heard(self.call(packed))

    def _in_doubt(self, packed: Packed) -> bool:
        return packed[1] not in self._known or time.monotonic() - self._heard > _MOMENT

    def call(self, packed: Packed) -> Any:
        """Send, and return the reply of this command."""
        return self.call_all([packed])[-1]

    def call_once(self, packed: Packed, again: Callable[[], Packed]) -> Any:
        """As `call`, of what is not idempotent: once a connection has broken, `again` is what is sent in its place."""
        self._instead = again
        try:
            return self.call(packed)
        finally:
            self._instead = None

    def call_all(self, batch: list[Packed]) -> list[Any]:
        """Send all in one go and return their replies, once those to what was posted before are heard.

        Raises ConnectionError or TimeoutError when the patience is used up, ResponseError for what cannot be mended.
        """
        posted = len(self._unanswered)
        fresh = self._connection is not None or not posted
        self._unanswered += batch
        todo = batch if fresh else self._unanswered
        replies: list[Any] = []
        deadline = time.monotonic() + self._patience
        wait = _FIRST_WAIT
        while True:
            try:
                if todo:
                    self._send(b"".join(packed[0] for packed in todo))
                replies += self._read(len(self._unanswered) - len(replies))
                self._heard = time.monotonic()
                self._known.update(script for _, script in self._unanswered if script is not None)
                return self._tell_listeners(replies)
            except _Again as again:
                # What was answered before the trouble is settled; the rest goes out again, in order.
                replies += again.replies
                problem: Exception = again.problem
            except (ConnectionError, TimeoutError) as error:
                self.close()
                replies, problem = [], error
                if self._instead is not None:
                    self._unanswered[-1] = self._instead()
            except BaseException:
                self.close()
                self._forget()
                raise
            todo = self._unanswered[len(replies) :]
            if isinstance(problem, NoScriptError):
                continue
            if isinstance(problem, AuthenticationError) and self._patience != FOREVER:
                self._forget()
                raise problem
            if time.monotonic() + wait > deadline or self._give_up():
                self._forget()
                raise problem
            time.sleep(wait)
            if wait < _LONGEST_WAIT <= 2 * wait:
                log.warning("Redis: %s: waiting for it", problem)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _tell_listeners(self, replies: list[Any]) -> list[Any]:
        listeners = self._listeners
        self._forget()
        for heard, reply in zip(listeners, replies, strict=False):
            heard(reply)
        return replies[len(listeners) :]

    def _forget(self) -> None:
        self._unanswered, self._listeners = [], []

    def settle(self) -> None:
        """Hear the replies to what was posted; it is sent again as long as there is none."""
        if self._unanswered:
            self.call_all([])

    def close(self) -> None:
        self._known.clear()
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _try_to_mute(self) -> bool:
        self._send(_REPLY_ON)
        try:
            self._connection.read_response()
        except ResponseError as error:
            log.warning("Redis refuses CLIENT REPLY (%s): each step has to wait for its answer", error)
            return False
        return True

    def _send(self, data: bytes, mute: bool = False) -> None:
        if self._connection is None:
            self._muted = self._owes_ok = False
            self._connection = self._pool.connection_class(**self._pool.connection_kwargs)
            try:
                self._connection.connect()
            except ResponseError as error:  # even SELECT may be refused for a while
                raise self._lost(error) from error
        if mute is not self._muted:
            data = (_REPLY_OFF if mute else _REPLY_ON) + data
            self._muted, self._owes_ok = mute, not mute
        self._connection.send_packed_command([data], check_health=False)

    def _read(self, expected: int) -> list[Any]:
        """Replies up to the first that has to be asked for again; that and all later ones are read and forgotten."""
        replies: list[Any] = []
        problem: ResponseError | None = None
        fatal: ResponseError | None = None
        if self._owes_ok:  # that replies are on again
            self._connection.read_response()
            self._owes_ok = False
        for _ in range(expected):
            try:
                reply = self._connection.read_response()
                if problem is None:
                    replies.append(reply)
            except NoScriptError as error:
                problem = problem or error
            except ResponseError as error:
                if self._passes(error):
                    problem = problem or error
                else:
                    fatal = fatal or error
        if fatal is not None:
            raise fatal
        if problem is not None:
            if isinstance(problem, NoScriptError):
                self._load_scripts()
            raise _Again(replies, problem)
        return replies

    def _passes(self, error: ResponseError) -> bool:
        """Whether this is trouble that passes by itself; to who waits for ever, that of a permission taken away, too."""
        if isinstance(error, NoPermissionError):
            return self._patience == FOREVER
        return isinstance(error, _PASSING) or str(error).startswith(_PASSING_CODES)

    def _lost(self, error: ResponseError) -> Exception:
        """Of a refusal of what is sent beside the commands: begin again with a new connection, if it passes."""
        return ConnectionError(str(error)) if self._passes(error) else error

    def _load_scripts(self) -> None:
        wanted = {s for _, s in self._unanswered if s is not None}
        for each in wanted:
            self._connection.send_packed_command([command("SCRIPT", "LOAD", each.source)[0]], check_health=False)
        for _ in wanted:
            try:
                self._connection.read_response()
            except ResponseError as error:
                raise self._lost(error) from error


class _Again(Exception):
    def __init__(self, replies: list[Any], problem: ResponseError) -> None:
        self.replies = replies
        self.problem = problem


def explain(error: Exception, url: str) -> ServerError:
    """A Redis error as one line with its remedy."""
    where, text = shown(url), str(error)
    if isinstance(error, AuthenticationError):
        return ServerError(f"Redis at {where} refuses the user name or password: set them in FLOW_REDIS_URL")
    if isinstance(error, NoPermissionError):
        return ServerError(
            f"Redis at {where} does not permit what flowlib needs: {text}; see the ACL in deploy/redis.conf"
        )
    if isinstance(error, OutOfMemoryError):
        return ServerError(f"Redis at {where} is full and refuses new work: raise maxmemory; nothing was stored")
    if isinstance(error, ReadOnlyError):
        return ServerError(
            f"Redis at {where} is a replica, which takes no writes: name its master, "
            f"or let redis+sentinel:// in place of redis:// find it; nothing was stored"
        )
    if isinstance(error, MovedError):
        return ServerError(
            f"Redis at {where} is a node of a cluster, and the keys are on {error.host}:{error.port}: "
            f"redis+cluster:// in place of redis:// finds them, wherever they go"
        )
    if isinstance(error, ResponseError):
        return ServerError(f"Redis at {where} says: {text}")
    return ServerError(f"no Redis at {where} ({text}): start one, or set FLOW_REDIS_URL or --redis-url")
