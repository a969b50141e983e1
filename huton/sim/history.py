"""What clients did and were told: the input of both checks of consistency.

A history is a sequence of operations on single keys. Each stands for the closed interval from its call to its
return, on one clock for all clients: two that touch in one nanosecond are concurrent. Every value that is written
in a history should be written once only: then a read tells which write it saw, and the search stays short.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

__all__ = ["Kind", "Operation", "describe", "show"]

Kind = Literal["set", "get", "delete", "cas"]

SHOWN: Final = 40
"""Longer keys and values are cut in texts, bytes."""


@attrs.frozen(kw_only=True)
class Operation:
    """One operation on one key.

    An operation that surely did not happen (it was refused before it entered a log) has no place in a history.
    Nor has a read that was never answered: it changed nothing and told nothing; both checks pass over it.

    Attributes:
        client: who asked. For texts only: the checks look at the times, and trust no client to wait for answers.
        kind: "cas" compares and sets.
        key: what it is about.
        value: what a set or cas writes; None for the others.
        expected: for a cas, the value that the key must have, None for a key that must be absent; else None.
        call: when the client asked, in nanoseconds.
        returned: when it was told, in nanoseconds, not before *call*. None: it never was, and a write may have
            taken effect at any time after *call*, or never.
        output: what it was told. A get: the value, None for no such key. A delete: whether the key existed, a cas:
            whether it wrote, both bool. A set: None. Without meaning where *returned* is None.
        index: the place in the log that the operation had, for ``witness`` only, which takes it from the cluster
            itself: for a write (also a cas that failed) the entry that carried it, None if the log has none; for a
            read the index that was applied when it was served.
    """

    client: str
    kind: Kind
    key: bytes
    value: bytes | None
    expected: bytes | None
    call: int
    returned: int | None
    output: bytes | bool | None
    index: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.returned is not None and self.returned < self.call:
            raise ValueError(f"it returned before it was called: {self!r}")
        if (self.value is not None) != (self.kind in ("set", "cas")):
            raise ValueError(f"sets and cas write a value, and nothing else does: {self!r}")


def describe(operation: Operation) -> str:
    """Say on one line who did what when, and what it was told."""
    key = show(operation.key)
    what = {
        "set": f"set {key} = {show(operation.value)}",
        "get": f"get {key}",
        "delete": f"delete {key}",
        "cas": f"cas {key} from {show(operation.expected)} to {show(operation.value)}",
    }[operation.kind]
    if operation.returned is None:
        end, told = "...", "never told"
    else:
        end, told = _seconds(operation.returned), _told(operation)
    at = "" if operation.index is None else f" at index {operation.index}"
    return f"{operation.client} [{_seconds(operation.call)}, {end}] {what} -> {told}{at}"


def _told(operation: Operation) -> str:
    match operation.kind:
        case "get":
            assert not isinstance(operation.output, bool)
            return show(operation.output)
        case "set":
            return "done"
        case "delete":
            return "deleted" if operation.output else "there was none"
        case "cas":
            return "done" if operation.output else "another value"


def _seconds(time: int) -> str:
    return f"{time // 1_000_000_000}.{time % 1_000_000_000:09d}s"


def show(data: bytes | None) -> str:
    if data is None:
        return "none"
    return ascii(data)[1:] if len(data) <= SHOWN else f"{ascii(data[:SHOWN])[1:]}... ({len(data)} bytes)"
