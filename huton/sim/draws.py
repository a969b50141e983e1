"""Chance by name: every draw has a key of its own, and removing one shifts no other.

A stream of random numbers hands the next number to whoever asks next, so that one message less changes
all that follows. Here a number belongs to what it decides, such as the 17th message from n1 to n2: a run can
be shrunk, or one fault switched off, and everything else stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final, TypeVar

__all__ = ["RANGE", "Draws"]

T = TypeVar("T")

RANGE: Final = 1 << 64
"""Every number that ``Draws.bits`` and ``Draws.numbers`` return is below this."""

_EIGHT: Final = Struct(">8Q")


class Draws:
    """Random numbers by key; the same seed and key give the same number on every machine.

    Args:
        seed: any integer.
    """

    def __init__(self, seed: int) -> None:
        self._hash = blake2b(b"%d\0" % seed, digest_size=8)
        self._wide = blake2b(b"%d\0" % seed, digest_size=64)

    def bits(self, *key: str | int) -> int:
        """Return 64 random bits for *key*."""
        digest = self._hash.copy()
        digest.update("\0".join(map(str, key)).encode())
        return int.from_bytes(digest.digest(), "big")

    def numbers(self, *key: str | int) -> tuple[int, ...]:
        """Return eight numbers of 64 random bits for *key*, for the price of one."""
        digest = self._wide.copy()
        digest.update("\0".join(map(str, key)).encode())
        return _EIGHT.unpack(digest.digest())

    def fraction(self, *key: str | int) -> float:
        """Return a number from 0 up to, not including, 1."""
        return self.bits(*key) / RANGE

    def chance(self, probability: float, *key: str | int) -> bool:
        """Return True with *probability*."""
        return self.bits(*key) < probability * RANGE

    def between(self, low: int, high: int, *key: str | int) -> int:
        """Return an integer from *low* to *high*, both included."""
        return low + self.bits(*key) * (high - low + 1) // RANGE

    def choice(self, options: Sequence[T], *key: str | int) -> T:
        """Return one of *options*."""
        return options[self.bits(*key) * len(options) // RANGE]

    def shuffled(self, items: Sequence[T], *key: str | int) -> list[T]:
        """Return *items* in a random order."""
        order = sorted(range(len(items)), key=lambda position: (self.bits(*key, position), position))
        return [items[position] for position in order]
