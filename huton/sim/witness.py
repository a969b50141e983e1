"""Is the order of the log the order that clients saw? Asked with the knowledge of where each operation happened.

If all operations, ordered by their place in the log, give each client what it was told, and if that order respects
time, then the history is linearizable: that order is the proof. This costs a sort. A history that fails here may
still be linearizable by luck, in another order; a cluster whose promise rests on its log has failed all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from huton.sim.history import Operation, describe, show

__all__ = ["check"]


def check(history: Sequence[Operation], *, initial: Mapping[bytes, bytes] | None = None) -> str | None:
    """Hold *history* against the order of the log; return what contradicts it, or None.

    Args:
        history: in any order. Every answered operation has an ``index``, else that is a violation; a write of unknown
            outcome has one if the log has it, and never happened otherwise.
        initial: what keys had before the first entry; those that it doesn't name were absent.
    """
    happened: list[tuple[int, bool, Operation]] = []
    for operation in history:
        read = operation.kind == "get"
        if operation.index is not None and not (read and operation.returned is None):
            happened.append((operation.index, read, operation))
        elif operation.returned is not None:
            return f"answered, but the log does not have it: {describe(operation)}"
    # A read comes after all writes at or below its index; among equals, time decides.
    happened.sort(key=lambda entry: (entry[0], entry[1], entry[2].call))
    return _replay(happened, initial or {}) or _respect_time(happened)


def _replay(happened: Sequence[tuple[int, bool, Operation]], initial: Mapping[bytes, bytes]) -> str | None:
    """Carry the operations out one after another, and compare what clients were told."""
    state: dict[bytes, bytes | None] = dict(initial)
    last_write: Operation | None = None
    for index, read, operation in happened:
        if not read:
            if last_write is not None and last_write.index == index:
                return f"two writes at one place in the log:\n  {describe(last_write)}\n  {describe(operation)}"
            last_write = operation
        before = state.get(operation.key)
        told: bytes | bool | None
        match operation.kind:
            case "get":
                told = before
            case "set":
                told, state[operation.key] = None, operation.value
            case "delete":
                told, state[operation.key] = before is not None, None
            case "cas":
                told = before == operation.expected
                if told:
                    state[operation.key] = operation.value
        if operation.returned is not None and operation.output != told:
            return f"in the order of the log the key had {show(before)}: {describe(operation)}"
    return None


def _respect_time(happened: Sequence[tuple[int, bool, Operation]]) -> str | None:
    """Compare the places in the log of operations of which one returned before the other was called."""
    returned = sorted(
        ((operation.returned, index, operation) for index, _, operation in happened if operation.returned is not None),
        key=lambda entry: entry[:2],
    )
    latest: tuple[int, Operation] | None = None
    position = 0
    for index, read, operation in sorted(happened, key=lambda entry: entry[2].call):
        while position < len(returned) and returned[position][0] < operation.call:
            _, other_index, other = returned[position]
            if latest is None or other_index > latest[0]:
                latest = other_index, other
            position += 1
        if latest is not None and (latest[0] > index or (latest[0] == index and not read)):
            return (
                f"the first returned before the second was called, but the log has them in another order:\n"
                f"  {describe(latest[1])}\n  {describe(operation)}"
            )
    return None
