"""The operations on one key, made ready for the search of ``linearizability``.

Values become numbers, operations become rules, and what can be told without a search is told here: a value that one
operation alone wrote says a lot about when that one happened. Whoever saw it came later. So a write of unknown
outcome that was seen did happen, and any write happened before the first return of all who saw its value. With the
intervals shortened in this way, three of them may already contradict each other: a write that surely came between
another and somebody who still saw that other's value. Most histories that are wrong are wrong like this, and the
three operations explain it better than a search that found nothing. (The test is a part of Gibbons and Korach's,
"Testing shared memories", 1997, which decides histories of reads and answered writes.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from huton.sim.history import Operation, describe, show

__all__ = ["NONE", "Part", "Rule"]

NONE: Final = -1
"""No need, nothing to avoid, no effect."""

ABSENT: Final = 0
"""The state of a key that does not exist. Values are numbered from 1 on."""

FIRST: Final = -1
"""In place of the operation that made a state: the key had it before the first call."""

SHOWN: Final = 8
"""How many operations of each sort the evidence shows."""

Rule = tuple[int, int, int]
"""Need (the state must be this), avoid (the state must not be this), effect (the state is this afterwards)."""


class Part:
    """The operations on one key, as arrays.

    Those that surely happened are numbered from 0 on by call, and the *guesses*, which may have, likewise.

    Attributes:
        calls, returns: when they were called, and when they had happened at the latest.
        needs, avoids, effects: their rules.
        guesses: per guess its rule.
        initial: the state before the first call.
        end: later than any return.
    """

    def __init__(self, key: bytes, operations: Sequence[Operation], initial: bytes | None) -> None:
        self._key = key
        self._values: list[bytes | None] = [None]
        self._ids: dict[bytes | None, int] = {None: ABSENT}
        self.initial = self._id(initial)
        ordered = sorted(operations, key=attrgetter("call"))
        self.end = max((op.returned for op in ordered if op.returned is not None), default=-1) + 1
        self._all = [op for op in ordered if op.returned is not None or (op.kind != "get" and op.call < self.end)]
        self._rules = [self._rule(op) for op in self._all]
        self._makers = self._find_makers()
        self._latest = [self.end if op.returned is None else op.returned for op in self._all]
        self._seen_by = self._shorten()
        self._sure = [n for n, latest in enumerate(self._latest) if latest < self.end]
        self.calls = [self._all[n].call for n in self._sure]
        self.returns = [self._latest[n] for n in self._sure]
        self.needs = [self._rules[n][0] for n in self._sure]
        self.avoids = [self._rules[n][1] for n in self._sure]
        self.effects = [self._rules[n][2] for n in self._sure]
        self._unsure = [n for n, latest in enumerate(self._latest) if latest == self.end]
        self.guesses = self._alike([self._rules[n] for n in self._unsure])
        # Per guess the bit of the one before it that can't be told from it, which has to be used first.
        self._twins: list[int] = []
        last: dict[Rule, int] = {}
        for number, rule in enumerate(self.guesses):
            self._twins.append(last.get(rule, 0))
            last[rule] = 1 << number
        self._needed_by: dict[int, tuple[int, int]] = {}
        for number, need in enumerate(self.needs):
            if need in self._makers:
                first, mask = self._needed_by.get(need, (number, 0))
                self._needed_by[need] = first, mask | 1 << (number - first)

    def _id(self, value: bytes | None) -> int:
        number = self._ids.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def _rule(self, op: Operation) -> Rule:
        """Return the rule of *op*; of a write of unknown outcome that which it had if it wrote."""
        if op.kind == "set":
            return NONE, NONE, self._id(op.value)
        if op.kind == "get":
            assert not isinstance(op.output, bool)
            return self._id(op.output), NONE, NONE
        wrote = op.output or op.returned is None
        if op.kind == "delete":
            return (NONE, ABSENT, ABSENT) if wrote else (ABSENT, NONE, NONE)
        return (self._id(op.expected), NONE, self._id(op.value)) if wrote else (NONE, self._id(op.expected), NONE)

    def _find_makers(self) -> dict[int, int]:
        """Return, for each state that can't come back once it is left, the only operation that can have made it."""
        makers = {self.initial: FIRST}
        more: list[int] = []
        for number, (_, _, effect) in enumerate(self._rules):
            if effect != NONE and makers.setdefault(effect, number) != number:
                more.append(effect)
        for effect in more:
            makers.pop(effect, None)
        return makers

    def _shorten(self) -> dict[int, int]:
        """Let nobody happen later than the first return of all who saw what it made; return by whom it was seen."""
        seen_by: dict[int, int] = {}
        latest, rules, makers = self._latest, self._rules, self._makers
        # By return, so that the first who pulls an operation forward pulls it as far as it goes.
        for number in sorted(range(len(latest)), key=latest.__getitem__):
            at, seer = latest[number], number
            while True:
                maker = makers.get(rules[seer][0], FIRST)
                if maker == FIRST or latest[maker] <= at:
                    break
                latest[maker], seen_by[maker] = at, seer
                seer = maker
        return seen_by

    def _alike(self, guesses: list[Rule]) -> list[Rule]:
        """Make one of all effects that no operation ever tells apart: values that nobody read or compared."""
        told = {*self.needs, *self.avoids, *(need for need, _, _ in guesses)}
        untold = len(self._values)
        self._values.append(b"some value that nobody read")
        return [(need, avoid, effect if effect in told else untold) for need, avoid, effect in guesses]

    # ------------------------------------------------------------------ for the search

    def pending(self, low: int, mask: int, state: int) -> int:
        """Return which operations, counted from *low*, still need *state* and would wait for ever if it were left."""
        first, needed = self._needed_by.get(state, (0, 0))
        return (needed >> (low - first) if low >= first else needed << (first - low)) & ~mask

    def helpful(self, blocked: Sequence[int], used: int, state: int, bound: int) -> list[int]:
        """Return the guesses that may come next and lead, alone or through others, to what *blocked* waits for."""
        usable = [
            u
            for u, twin in enumerate(self._twins)
            if not used >> u & 1 and used & twin == twin and self._all[self._unsure[u]].call <= bound
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
            for u in useful
            for need, avoid, effect in [self.guesses[u]]
            if need in (NONE, state) and state not in (avoid, effect)
        ]

    # ------------------------------------------------------------------ evidence

    def contradiction(self) -> str | None:
        """Return what is wrong, if it can be told from the times of two or three operations."""
        latest, makers = self._latest, self._makers
        writes = [n for n in self._sure if self._rules[n][2] != NONE]
        calls = [self._all[n].call for n in writes]
        # Per write, which of it and all that were called later had happened first.
        soonest = [*writes]
        for i in range(len(soonest) - 2, -1, -1):
            if latest[soonest[i + 1]] < latest[soonest[i]]:
                soonest[i] = soonest[i + 1]
        written = {*self.effects, *(effect for _, _, effect in self.guesses), self.initial}
        for seer in self._sure:
            need = self._rules[seer][0]
            if need not in written and need != NONE:
                return self._tell(f"nobody wrote {show(self._values[need])}", seer)
            maker = makers.get(need)
            if maker is None:
                continue
            if maker == FIRST:
                after = 0
            elif latest[maker] < self._all[maker].call:
                return self._tell("it was seen before it was called", maker)
            else:
                after = bisect_right(calls, latest[maker])
            if after < len(soonest) and latest[soonest[after]] < self._all[seer].call:
                between = [maker] if maker != FIRST else []
                return self._tell("the last saw a state that was gone", *between, soonest[after], seer)
        return None

    def _tell(self, why: str, *numbers: int) -> str:
        lines = [f"on {show(self._key)}, {why}:"]
        for number in numbers:
            lines.append(f"  {describe(self._all[number])}")
            while number in self._seen_by:
                number = self._seen_by[number]
                lines.append(f"    seen by {describe(self._all[number])}")
        return "\n".join(lines)

    def explain(self, order: Sequence[int]) -> str:
        """Say how far the longest *order* came, and what could not come next. Guesses count from -1 downwards."""
        state = self.initial
        for number in order:
            effect = self.effects[number] if number >= 0 else self.guesses[-1 - number][2]
            state = effect if effect != NONE else state
        placed = {*order}
        left = [number for number in range(len(self._sure)) if number not in placed]
        bound = min(self.returns[number] for number in left)
        stuck = [number for number in left if self.calls[number] <= bound]
        count = f"{len(self._sure) - len(left)} of the {len(self._sure)} operations that happened"
        lines = [
            f"on {show(self._key)}, no order fits; the longest found has {count}, and ends:",
            *[self._line(number) for number in order[-SHOWN:]],
            f"which leaves {show(self._values[state])}; to go on from there with one of these leads nowhere:",
            *[self._line(number) for number in stuck[:SHOWN]],
        ]
        return "\n".join(lines)

    def _line(self, number: int) -> str:
        return f"  {describe(self._all[self._sure[number] if number >= 0 else self._unsure[-1 - number]])}"
