"""Is there an order in which all operations could have happened, one at a time? Asked of the history alone.

The search of Wing and Gong (1993) with the cache of Lowe (2017), key by key (Horn and Kroening 2015): a history of
single keys is linearizable if and only if the history of each key is. What Porcupine does with a linked list of calls
and returns is done here with *configurations*, which are values:

    (low, mask, used, state)      the answered operations before number low are placed, and those in mask, whose bit 0
                                  is operation low; so are the unknown writes in used; and then the key has state.

Operations are numbered by call. One may come next if it was called before any that is not yet placed returned.
Each is three numbers, *need* (the state must be this one), *avoid* (must not be this one) and *effect* (is this one
afterwards), where -1 stands for none: to try one takes two comparisons. What keeps the search short:

- An operation without effect that may come next and fits the state comes next: nothing is gained by waiting.
- A state that can't come back is not left while an answered operation still needs it. Where every value is written
  once only, this leaves little to search. (Values that are written twice are checked as well, but slower.)
- An unknown write never returned, so it can always come later: it is placed only where an operation that may come
  next waits for its effect. Of those that can't be told apart the first comes first.

The problem is NP-complete (Gibbons and Korach 1997), so there is a budget. Keys take turns in small slices, so that a
key that is illegal is found although another one is hard.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import attrs

from huton.sim.history import Operation, describe, show

__all__ = ["STEPS_MAX", "Kind", "Verdict", "check"]

STEPS_MAX: Final = 4_000_000
"""The budget of one check."""

SLICE: Final = 20_000
"""How many steps a key may search before the next one has its turn."""

NONE: Final = -1
"""No need, nothing to avoid, no effect."""

ABSENT: Final = 0
"""The state of a key that does not exist. Values are numbered from 1 on."""

SHOWN: Final = 8
"""How many operations of each sort the evidence shows."""

Path = tuple[Any, int] | None
"""What was placed, last first, as (the path before it, its number); unknown writes count from -1 downwards."""

Rule = tuple[int, int, int]
"""Need, avoid, effect."""


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
            for u in part.helpful(blocked, used, state, bound):
                stack.append((low, mask, used | 1 << u, part.guesses[u][2], (path, -1 - u)))
        for i in reversed(choices):
            stack.append((low, mask | 1 << (i - low), used, effects[i], (path, i)))
    return steps, part.explain(best_path)


class Part:
    """The operations on one key, as arrays.

    Attributes:
        calls, returns: of the answered operations, ordered by call.
        needs, avoids, effects: their rules.
        guesses: per unknown write, ordered by call, its rule.
        initial: the state before the first call.
        end: later than any return.
    """

    def __init__(self, key: bytes, operations: Sequence[Operation], initial: bytes | None) -> None:
        self._key = key
        self._values: list[bytes | None] = [None]
        self._ids: dict[bytes | None, int] = {None: ABSENT}
        self.initial = self._id(initial)
        ordered = sorted(operations, key=attrgetter("call"))
        self._known = [op for op in ordered if op.returned is not None]
        self.calls = [op.call for op in self._known]
        self.returns = [op.returned for op in self._known if op.returned is not None]
        self.end = max(self.returns, default=-1) + 1
        rules = [self._rule(op) for op in self._known]
        self.needs = [need for need, _, _ in rules]
        self.avoids = [avoid for _, avoid, _ in rules]
        self.effects = [effect for _, _, effect in rules]
        self._unknown = [op for op in ordered if op.returned is None and op.kind != "get" and op.call < self.end]
        self.guesses = self._alike([self._guess(op) for op in self._unknown])
        # Per guess the bit of the one before it that can't be told from it, which has to be used first.
        self._twins: list[int] = []
        last: dict[Rule, int] = {}
        for number, rule in enumerate(self.guesses):
            self._twins.append(last.get(rule, 0))
            last[rule] = 1 << number
        self._needed_by = self._count_needs()

    def _id(self, value: bytes | None) -> int:
        number = self._ids.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def _rule(self, op: Operation) -> Rule:
        """Return the rule of an operation that was answered."""
        if op.kind == "get":
            assert not isinstance(op.output, bool)
            return self._id(op.output), NONE, NONE
        if op.kind == "set":
            return NONE, NONE, self._id(op.value)
        if op.kind == "delete":
            return (NONE, ABSENT, ABSENT) if op.output else (ABSENT, NONE, NONE)
        if op.output:
            return self._id(op.expected), NONE, self._id(op.value)
        return NONE, self._id(op.expected), NONE

    def _guess(self, op: Operation) -> Rule:
        """Return the rule of an unknown write, where it has an effect: where it has none, it need not be placed."""
        if op.kind == "delete":
            return NONE, ABSENT, ABSENT
        return self._id(op.expected) if op.kind == "cas" else NONE, NONE, self._id(op.value)

    def _alike(self, guesses: list[Rule]) -> list[Rule]:
        """Make one of all effects that no operation ever tells apart: values that nobody read or compared."""
        told = {*self.needs, *self.avoids, *(need for need, _, _ in guesses)}
        untold = len(self._values)
        self._values.append(b"(some value that nobody read)")
        return [(need, avoid, effect if effect in told else untold) for need, avoid, effect in guesses]

    def _count_needs(self) -> dict[int, tuple[int, int]]:
        """Return, for each state that can't come back, which operations need it: the first, and a mask from it on."""
        writers: dict[int, int] = {self.initial: 1}
        for effect in (*self.effects, *(effect for _, _, effect in self.guesses)):
            writers[effect] = writers.get(effect, 0) + 1
        needed_by: dict[int, tuple[int, int]] = {}
        for number, need in enumerate(self.needs):
            if need != NONE and writers.get(need, 0) <= 1:
                first, mask = needed_by.get(need, (number, 0))
                needed_by[need] = first, mask | 1 << (number - first)
        return needed_by

    def pending(self, low: int, mask: int, state: int) -> int:
        """Return which operations, counted from *low*, still need *state* and would wait for ever if it were left."""
        first, needed = self._needed_by.get(state, (0, 0))
        return (needed >> (low - first) if low >= first else needed << (first - low)) & ~mask

    def helpful(self, blocked: Sequence[int], used: int, state: int, bound: int) -> list[int]:
        """Return the guesses that may come next and lead, alone or through others, to what *blocked* waits for."""
        usable = [
            u
            for u, twin in enumerate(self._twins)
            if not used >> u & 1 and used & twin == twin and self._unknown[u].call <= bound
        ]
        wanted = {self.needs[i] for i in blocked if self.needs[i] != NONE}
        any_change = any(self.avoids[i] == state for i in blocked)
        while True:
            useful = [u for u in usable if any_change or self.guesses[u][2] in wanted]
            more = {self.guesses[u][0] for u in useful} - {NONE} - wanted
            if not more:
                break
            wanted |= more
        return [
            u
            for u in reversed(useful)
            for need, avoid, effect in [self.guesses[u]]
            if need in (NONE, state) and state not in (avoid, effect)
        ]

    def explain(self, path: Path) -> str:
        """Say how far the longest order came, and what could not come next."""
        order: list[int] = []
        while path is not None:
            path, number = path
            order.append(number)
        order.reverse()
        state = self.initial
        for number in order:
            effect = self.effects[number] if number >= 0 else self.guesses[-1 - number][2]
            state = effect if effect != NONE else state
        placed = {*order}
        left = [number for number in range(len(self._known)) if number not in placed]
        bound = min(self.returns[number] for number in left)
        stuck = [number for number in left if self.calls[number] <= bound]
        count = len(self._known)
        lines = [f"no order fits the {count} operations on {show(self._key)}; the longest found has {len(placed)}:"]
        lines += ["  ..."] if len(order) > SHOWN else []
        lines += [f"  {describe(self._operation(number))}" for number in order[-SHOWN:]]
        lines.append(f"and leaves {show(self._values[state])}, where none of these can come next, or leads to an end:")
        lines += [f"  {describe(self._operation(number))}" for number in stuck[:SHOWN]]
        lines += ["  ..."] if len(stuck) > SHOWN else []
        return "\n".join(lines)

    def _operation(self, number: int) -> Operation:
        return self._known[number] if number >= 0 else self._unknown[-1 - number]
