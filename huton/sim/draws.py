"""Chance by name: every draw has a key of its own, and removing one shifts no other.

A stream of random numbers hands the next number to whoever asks next, so that one message less changes
all that follows. Here a number belongs to what it decides, such as the 17th message from n1 to n2: a run can
be shrunk, or one fault switched off, and everything else stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, TypeVar

__all__ = ["Draws"]

T = TypeVar("T")

_RANGE: Final = 1 << 64


class Draws:
    """Random numbers by key; the same seed and key give the same number on every machine.

    Args:
        seed: any integer.
    """

    def __init__(self, seed: int) -> None:
        self._hash = blake2b(b"%d" % seed, digest_size=8)

    def bits(self, *key: str | int) -> int:
        """Return 64 random bits for *key*."""
        digest = self._hash.copy()
        digest.update("\0".join(map(str, key)).encode())
        return int.from_bytes(digest.digest(), "big")

    def fraction(self, *key: str | int) -> float:
        """Return a number from 0 up to, not including, 1."""
        return self.bits(*key) / _RANGE

    def chance(self, probability: float, *key: str | int) -> bool:
        """Return True with *probability*."""
        return self.bits(*key) < probability * _RANGE

    def between(self, low: int, high: int, *key: str | int) -> int:
        """Return an integer from *low* to *high*, both included."""
        return low + self.bits(*key) * (high - low + 1) // _RANGE

    def choice(self, options: Sequence[T], *key: str | int) -> T:
        """Return one of *options*."""
        return options[self.bits(*key) * len(options) // _RANGE]

    def shuffled(self, items: Sequence[T], *key: str | int) -> list[T]:
        """Return *items* in a random order."""
        order = sorted(range(len(items)), key=lambda position: (self.bits(*key, position), position))
        return [items[position] for position in order]
