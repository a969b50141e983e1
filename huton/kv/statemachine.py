"""What a replicated state machine is to huton, and what it may touch.

``KeyValueMachine`` is one; a user's own plugs in at the same place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import attrs

__all__ = [
    "FIRST_KEY",
    "RESERVED_PREFIX",
    "STATE_KEY_BYTES_MAX",
    "ApplyContext",
    "StateMachine",
    "StateReader",
    "StateWriter",
]


STATE_KEY_BYTES_MAX: Final = 500
"""The longest key in a state; LMDB's own limit is 511."""


RESERVED_PREFIX: Final = b"\0"
"""With it begin the keys of huton's own records, in front of all others. No state machine uses them."""

FIRST_KEY: Final = b"\1"
"""No key of a state machine comes before it."""


class StateReader(Protocol):
    """An ordered map of bytes to bytes. Keys are 1 to ``STATE_KEY_BYTES_MAX`` bytes, the first of them not 0."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None; an empty value is a value."""
        ...

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) with ``start <= key < stop`` in byte order; no *stop* means to the end."""
        ...


class StateWriter(StateReader, Protocol):
    """What one command may change; it reads its own writes.

    Nothing is visible to others until the command has ended well, and nothing at all if it raises.
    """

    def put(self, key: bytes, value: bytes) -> None:
        """Set *key* to *value*.

        Raises:
            ValueError: the key is empty, longer than ``STATE_KEY_BYTES_MAX``, or begins with ``RESERVED_PREFIX``.
        """
        ...

    def delete(self, key: bytes) -> None:
        """Remove *key*; a missing one is no error.

        Raises:
            ValueError: as for ``put``.
        """
        ...


@attrs.frozen
class ApplyContext:
    """What a command may know of the world, the same on every replica.

    Attributes:
        index: the log index of the command, which is its revision.
        stamp: cluster time in nanoseconds; never goes back.
    """

    index: int
    stamp: int


class StateMachine(Protocol):
    """Deterministic: the same commands in the same order give the same state and answers.

    No clock, no chance, no set order, no I/O.
    """

    def apply(self, context: ApplyContext, command: bytes, state: StateWriter) -> bytes:
        """Carry out *command* and return the answer for its caller.

        Raises:
            CommandFailed: the command changes nothing, and its caller gets this error. It
                counts as applied, on every replica alike.
        """
        ...
