"""Histories for the checks of consistency: short names for operations, and a cluster that is a dictionary.

Outside tests/sim import it as ``tests.sim.histories``.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from hypothesis import strategies as st

from huton.sim.history import Kind, Operation

__all__ = ["Draft", "cas", "delete", "drafts", "execute", "get", "planted_lost_writes", "planted_stale_reads", "set_"]

Times = tuple[int, int | None]
"""Call and return; None: never."""


def set_(value: bytes, times: Times, *, key: bytes = b"k", index: int | None = None) -> Operation:
    return make("set", key, times, None, value=value, index=index)


def get(output: bytes | None, times: Times, *, key: bytes = b"k", index: int | None = None) -> Operation:
    return make("get", key, times, output, index=index)


def delete(existed: bool | None, times: Times, *, key: bytes = b"k", index: int | None = None) -> Operation:
    return make("delete", key, times, existed, index=index)


def cas(
    expected: bytes | None,
    value: bytes,
    done: bool | None,
    times: Times,
    *,
    key: bytes = b"k",
    index: int | None = None,
) -> Operation:
    return make("cas", key, times, done, value=value, expected=expected, index=index)


def make(
    kind: Kind,
    key: bytes,
    times: Times,
    output: bytes | bool | None,
    *,
    value: bytes | None = None,
    expected: bytes | None = None,
    index: int | None = None,
) -> Operation:
    return Operation(
        client="c",
        kind=kind,
        key=key,
        value=value,
        expected=expected,
        call=times[0],
        returned=times[1],
        output=output,
        index=index,
    )


@attrs.frozen
class Draft:
    """An operation before it is carried out.

    Attributes:
        expects: for a cas, how many values of the key ago it expects (0: the present one).
        before, after: how long before it takes effect it is called, and after that returns.
        lost: for a write: it is never answered, and takes effect only if this is "late".
    """

    kind: Kind
    key: bytes
    expects: int
    before: int
    after: int
    lost: str | None


def drafts(keys: Sequence[bytes] = (b"k", b"l"), *, jitter: int = 40, size: int = 40) -> st.SearchStrategy[list[Draft]]:
    """What clients may do, one every ten nanoseconds on the average: the jitter is how far they overlap."""
    kinds: tuple[Kind, ...] = ("get", "get", "set", "set", "delete", "cas")
    draft = st.builds(
        Draft,
        st.sampled_from(kinds),
        st.sampled_from(keys),
        st.integers(0, 2),
        st.integers(0, jitter),
        st.integers(0, jitter),
        st.sampled_from([None, None, None, None, "late", "never"]),
    )
    return st.lists(draft, max_size=size)


def execute(plan: Sequence[Draft]) -> list[Operation]:
    """Carry *plan* out, one operation after another, on a dictionary; place n takes effect at time 10 n."""
    past: dict[bytes, list[bytes | None]] = {}
    history: list[Operation] = []
    for index, draft in enumerate(plan, 1):
        values = past.setdefault(draft.key, [None])
        state = values[-1]
        unique = b"%d" % index
        expected = values[-1 - draft.expects] if draft.expects < len(values) else b"never there"
        lost = draft.lost if draft.kind != "get" else None
        times = 10 * index - draft.before, None if lost else 10 * index + draft.after
        output: bytes | bool | None = None
        after = state
        match draft.kind:
            case "get":
                output = state
            case "set":
                after = unique
            case "delete":
                output, after = state is not None, None
            case "cas":
                output = state == expected
                after = unique if output else state
        if lost != "never" and after != state:
            values.append(after)
        history.append(
            make(
                draft.kind,
                draft.key,
                times,
                None if lost else output,
                value=unique if draft.kind in ("set", "cas") else None,
                expected=expected if draft.kind == "cas" else None,
                index=None if lost == "never" else index,
            )
        )
    return history


@st.composite
def planted_stale_reads(draw: st.DrawFn) -> list[Operation]:
    """Draw a history in which one read was given the value before the last one, amid anything else on its key."""
    noise = drafts([b"k"], jitter=80, size=15)
    write, read = (Draft(kind, b"k", 0, 4, 4, None) for kind in ("set", "get"))
    before, between, behind = draw(noise), draw(noise), draw(noise)
    history = execute([*before, write, *between, write, *behind, read, *draw(noise)])
    place = len(before) + len(between) + len(behind) + 2
    return [*history[:place], attrs.evolve(history[place], output=history[len(before)].value), *history[place + 1 :]]


@st.composite
def planted_lost_writes(draw: st.DrawFn) -> list[Operation]:
    """Draw a history in which the answered write of ``b"lost"`` changed nothing, and the next operation is a read."""
    noise = drafts([b"k"], jitter=80, size=15)
    before = [draft for draft in draw(noise) if draft.lost is None]
    read = Draft("get", b"k", 0, 4, 4, None)
    history = [
        op if op.index is None else attrs.evolve(op, index=2 * op.index)
        for op in execute([*before, read, *draw(noise)])
    ]
    called = 10 * len(before) + 4
    lost = set_(b"lost", (called, called + 1), index=2 * len(before) + 1)
    calm = [attrs.evolve(op, returned=min(op.returned or called, called - 1)) for op in history[: len(before)]]
    later = [attrs.evolve(op, call=max(op.call, called + 11)) for op in history[len(before) + 1 :]]
    return [*calm, lost, history[len(before)], *later]
