"""What the redis door remembers: of itself, of each connection, and of scans that go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from huton.env import Env
from huton.errors import (
    CommandFailed,
    NoLeader,
    NotAnInteger,
    OutcomeUnknown,
    Overloaded,
    RequestError,
    StorageFull,
)
from huton.frontends.listening import Tally
from huton.frontends.resp_protocol import Command, Failure, Reply

if TYPE_CHECKING:
    from huton.kv.machine import KeyValue
    from huton.runtime.bucket import Bucket
    from huton.runtime.node import Node

__all__ = [
    "Act",
    "Choice",
    "Cursors",
    "Door",
    "Handler",
    "Lookup",
    "Place",
    "Session",
    "Spec",
    "Store",
    "Write",
    "failure_of",
]

CURSORS_MAX: Final = 4_096
"""Places of unfinished SCANs that one door remembers; the one unused for longest is forgotten."""

FIRST_BUCKET: Final = "0"
"""The bucket that a connection starts in: what redis calls database 0."""

_WORDS: Final[tuple[tuple[type[RequestError], str], ...]] = (
    (NoLeader, "NOLEADER"),
    (OutcomeUnknown, "OUTCOMEUNKNOWN"),
    (Overloaded, "OVERLOADED"),
    (StorageFull, "STORAGEFULL"),
)


def failure_of(error: RequestError) -> Failure:
    """Return what a redis client is told of *error*."""
    for kind, word in _WORDS:
        if isinstance(error, kind):
            return Failure(f"{word} {error}")
    if isinstance(error, NotAnInteger):
        return Failure("ERR value is not an integer or out of range")
    if isinstance(error, CommandFailed):
        return Failure(f"ERR {error.code}: {error}")
    return Failure(f"ERR {error}")


@attrs.frozen
class Place:
    """Where a SCAN goes on.

    Attributes:
        bucket: the bucket that is scanned.
        after: the last key that was looked at.
        previous: the cursor that led here; 0 if the scan had just begun.
    """

    bucket: bytes | str
    after: bytes
    previous: int


class Cursors:
    """The places of unfinished SCANs, each under a number.

    They belong to the door, not to a connection, because clients with a pool send each step of a scan
    over whichever connection is free. A place is a key, and keys are scanned in order: a key that is
    there all the time is found once, whatever comes and goes around it. Numbers are drawn at
    random, so that one from before a restart is refused instead of meaning some other place.

    Args:
        draw: chance: returns a number of so many bits.
    """

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw
        self._places: dict[int, Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def remember(self, bucket: bytes | str, after: bytes, *, previous: int) -> int:
        """Return a new cursor; the one before *previous* is forgotten.

        *previous* itself stays, for a client that has lost the answer and asks again.
        """
        if previous in self._places:
            self._places.pop(self._places[previous].previous, None)
        cursor = self._draw(63) | 1  # Never 0, which means the beginning, and the end.
        self._places[cursor] = Place(bucket, after, previous)
        if len(self._places) > CURSORS_MAX:
            del self._places[next(iter(self._places))]
        return cursor

    def find(self, cursor: int) -> Place | None:
        """Return the place, which counts as used now."""
        place = self._places.pop(cursor, None)
        if place is not None:
            self._places[cursor] = place
        return place


class Door:
    """What the connections of one door share."""

    def __init__(self, node: Node, env: Env, tally: Tally, *, version: str, password: str | None = None) -> None:
        self.node = node
        self.clock = env.clock
        self.version = version
        self.password = None if password is None else password.encode()
        self.cursors = Cursors(env.random.getrandbits)
        self.started_ns = env.clock.now()
        self.tally = tally
        self.commands = 0
        self._born = False

    @property
    def born(self) -> bool:
        """Whether the node belongs to a cluster; until then nothing is submitted, everything waits."""
        self._born = self._born or self.node.status().role != "unborn"
        return self._born


class Session:
    """One connection: what its client has chosen.

    Attributes:
        protocol: 2 or 3: how replies are written.
        known: whether the client has given the password, if there is one.
        closing: whether the connection closes once what was answered so far is sent.
    """

    def __init__(self, door: Door, number: int) -> None:
        self.door = door
        self.number = number
        self.library: dict[str, str] = {"lib-name": "", "lib-ver": ""}
        self.closing = False
        self.reset()

    def reset(self) -> None:
        """Be as a connection is when it has just been accepted."""
        self.protocol = 2
        self.known = self.door.password is None
        self.name = b""
        self.select(FIRST_BUCKET)

    def select(self, bucket: bytes | str) -> None:
        """Use *bucket* from now on.

        Raises:
            InvalidRequest: that is no name for a bucket.
        """
        self.bucket: Bucket = self.door.node.bucket(bucket)
        self.bucket_name: bytes | str = bucket


# ----------------------------------------------------------- kinds of commands

Handler = Callable[[Session, Command], Awaitable[Reply]]
"""Carries out one command. May raise ``RequestError``, which becomes an error reply."""


@attrs.frozen
class Lookup:
    """A command that is answered from the entries of some keys; neighbours share one read.

    Attributes:
        keys: which keys.
        answer: the reply, from the entries of those keys, in their order.
    """

    keys: Callable[[Command], Sequence[bytes]]
    answer: Callable[[Sequence[KeyValue | None]], Reply]


@attrs.frozen
class Store:
    """A command that sets keys and is answered with OK; neighbours share one write.

    Attributes:
        items: what to set, from a command whose arguments are keys and values only.
    """

    items: Callable[[Command], Iterable[tuple[bytes, bytes]]]


@attrs.frozen
class Write:
    """A command that is one write of the bucket.

    Attributes:
        submit: carries it out. Must call the bucket before it waits for anything: what comes after it
            on its connection is submitted when it waits for the first time.
    """

    submit: Handler


Act = Handler | Lookup | Store | Write


@attrs.frozen
class Choice:
    """A command that is carried out one way or another.

    Attributes:
        act: which way. Raises ``InvalidRequest`` if the command makes no sense.
    """

    act: Callable[[Command], Act]


@attrs.frozen
class Spec:
    """One row of the command table.

    Attributes:
        act: what carries it out.
        arity: how many arguments, the name included; at least that many if negative.
        summary: one line for people.
        flags: redis' words for what it does.
        keys: (first, last, step) positions of keys among the arguments; a negative last counts
            from the end; (0, 0, 0) if there are none.
    """

    act: Act | Choice
    arity: int
    summary: str
    flags: tuple[str, ...] = ()
    keys: tuple[int, int, int] = (0, 0, 0)
