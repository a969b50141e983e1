"""Is there an order in which all operations could have happened, one at a time? Asked of the history alone.

The search of Wing and Gong (1993) with the cache of Lowe (2017), key by key (Horn and Kroening 2015): a history of
single keys is linearizable if and only if the history of each key is. What Porcupine does with a linked list of calls
and returns is done here with *configurations*, which are values:

    (low, mask, used, state)      the operations before number low are placed, and those in mask, whose bit 0 is
                                  operation low; so are the unknown writes in used; and then the key has state.

Operations are numbered by call. One may come next if it was called before any that is not yet placed returned.
Each is three numbers, need, avoid and effect (see ``part``), so that to try one takes two comparisons. What keeps the
search short:

- An operation without effect that may come next and fits the state comes next: nothing is gained by waiting.
- A state that can't come back is not left while an answered operation still needs it. Where every value is written
  once only, this leaves little to search. (Values that are written twice are checked as well, but slower.)
- A write of unknown outcome whose value was seen did happen, and before that: it counts as answered.
- Any other unknown write never returned, so it can always come later: it is placed only where an operation that may
  come next waits for its effect. Of those that can't be told apart the first comes first.

The problem is NP-complete (Gibbons and Korach 1997), so there is a budget. Keys take turns in small slices, so that a
key that is illegal is found although another one is hard.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

import attrs

from huton.sim.history import Operation, show
from huton.sim.part import Part

__all__ = ["STEPS_MAX", "Kind", "Verdict", "check"]

STEPS_MAX: Final = 4_000_000
"""The budget of one check."""

SLICE: Final = 20_000
"""How many steps a key may search before the next one has its turn."""

Path = tuple[Any, int] | None
"""What was placed, last first, as (the path before it, its number); unknown writes count from -1 downwards."""


class Kind(enum.Enum):
    """What a check may find."""

    LINEARIZABLE = "linearizable"
    ILLEGAL = "illegal"
    UNKNOWN = "unknown"


@attrs.frozen
class Verdict:
    """What came of a check.

    Attributes:
        kind: UNKNOWN means that the budget was used up, and no key had been found illegal by then.
        evidence: if ILLEGAL, the key, the end of the longest order that was found, and what could not come next;
            if UNKNOWN, the keys that were left. One or more lines of text.
        steps: how many times the search looked at an operation; the same for the same history.
    """

    kind: Kind
    evidence: str
    steps: int


def check(
    history: Sequence[Operation], *, steps_max: int = STEPS_MAX, initial: Mapping[bytes, bytes] | None = None
) -> Verdict:
    """Search for an order of *history* that fits all that clients were told, and when.

    Args:
        history: in any order; ``index`` is not looked at.
        steps_max: the budget for all keys together; it may be exceeded by one slice.
        initial: what keys had before the first call; those that it doesn't name were absent.
    """
    keys: dict[bytes, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    waiting = deque((key, _search(key, of_key, (initial or {}).get(key))) for key, of_key in keys.items())
    steps = 0
    while waiting:
        key, search = waiting.popleft()
        try:
            steps += next(search)
        except StopIteration as end:
            last, evidence = end.value
            steps += last
            if evidence is not None:
                return Verdict(Kind.ILLEGAL, evidence, steps)
        else:
            waiting.append((key, search))
        if waiting and steps > steps_max:
            left = ", ".join(show(key) for key, _ in waiting)
            return Verdict(Kind.UNKNOWN, f"{steps} steps were not enough for all; left were {left}", steps)
    return Verdict(Kind.LINEARIZABLE, "", steps)


def _search(
    key: bytes, operations: Sequence[Operation], initial: bytes | None
) -> Generator[int, None, tuple[int, str | None]]:
    """Search one key, depth first; yield and return steps since the last time, and at the end what is wrong."""
    part = Part(key, operations, initial)
    contradiction = part.contradiction()
    if contradiction is not None:
        return len(operations), contradiction
    calls, returns, needs, avoids, effects = part.calls, part.returns, part.needs, part.avoids, part.effects
    count = len(calls)
    seen: set[tuple[int, int, int, int]] = set()
    stack: list[tuple[int, int, int, int, Path]] = [(0, 0, 0, part.initial, None)]
    best, best_path = -1, None
    steps = 0
    while stack:
        if steps >= SLICE:
            yield steps
            steps = 0
        low, mask, used, state, path = stack.pop()
        bound = part.end
        choices: list[int] = []
        blocked: list[int] = []
        i = low
        while i < count and calls[i] <= bound:  # The bound falls while we go on, but never below a call we passed.
            steps += 1
            rest = mask >> (i - low)
            if rest & 1:
                run = (rest ^ (rest + 1)).bit_length() - 1
                if i == low:
                    low += run
                    mask >>= run
                i += run
                continue
            need = needs[i]
            if (need == state or need < 0) and avoids[i] != state:
                if effects[i] < 0:
                    path = (path, i)
                    mask |= 1 << (i - low)
                    continue
                choices.append(i)
            else:
                blocked.append(i)
            if returns[i] < bound:  # noqa: PLR1730  # min() would cost a call in the innermost loop
                bound = returns[i]
            i += 1
        if low == count:
            return steps, None
        if stack:  # Without an alternative nothing can lead here again.
            configuration = (low, mask, used, state)
            if configuration in seen:
                continue
            seen.add(configuration)
        placed = low + mask.bit_count()
        if placed > best:
            best, best_path = placed, path
        pending = part.pending(low, mask, state)
        if pending:
            choices = [i for i in choices if pending == 1 << (i - low)]
        elif blocked and part.guesses:
            for u in reversed(part.helpful(blocked, used, state, bound)):
                stack.append((low, mask, used | 1 << u, part.guesses[u][2], (path, -1 - u)))
        choices.sort(key=returns.__getitem__)  # The one that has to happen soonest is tried first.
        for i in reversed(choices):
            stack.append((low, mask | 1 << (i - low), used, effects[i], (path, i)))
    order: list[int] = []
    while best_path is not None:
        best_path, number = best_path
        order.append(number)
    return steps, part.explain(order[::-1])
