"""Glob patterns over bytes, as redis' KEYS and SCAN understand them.

``*`` any bytes, ``?`` one byte, ``[abc]`` ``[a-z]`` ``[^a-z]`` one byte of a class, ``\\x`` the byte x itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import attrs

__all__ = ["Pattern", "compile_pattern"]

_ANY_BYTE: Final = b"[\\x00-\\xff]"


@attrs.frozen
class Pattern:
    """A compiled pattern.

    Attributes:
        prefix: what every match starts with.
        exact: whether ``prefix`` is the only match.
    """

    prefix: bytes
    exact: bool
    # What stands between the stars, each of a fixed length. Matching them one after the other, each
    # as far left as it goes, is right and takes at most len(pattern) * len(key) steps; a single
    # regular expression with many stars could take the lifetime of the process.
    _pieces: tuple[re.Pattern[bytes], ...]
    _lengths: tuple[int, ...]

    def matches(self, key: bytes) -> bool:
        """Whether the whole of *key* matches."""
        if self.exact:
            return key == self.prefix
        head = self._pieces[0].match(key)
        if head is None:
            return False
        if len(self._pieces) == 1:
            return head.end() == len(key)
        position = head.end()
        for piece in self._pieces[1:-1]:
            found = piece.search(key, position)
            if found is None:
                return False
            position = found.end()
        tail = len(key) - self._lengths[-1]
        return tail >= position and self._pieces[-1].match(key, tail) is not None


def compile_pattern(pattern: bytes) -> Pattern:
    """Compile *pattern*; every byte string is one (an unclosed class ends with the pattern)."""
    pieces: list[list[bytes]] = [[]]
    prefix = bytearray()
    literal_so_far = True
    for atom, literal in _atoms(pattern):
        if literal is not None and literal_so_far:
            prefix += literal
        else:
            literal_so_far = False
        if atom is None:
            pieces.append([])
        else:
            pieces[-1].append(atom)
    return Pattern(
        bytes(prefix),
        literal_so_far,
        tuple(re.compile(b"".join(atoms)) for atoms in pieces),
        tuple(len(atoms) for atoms in pieces),
    )


def _atoms(pattern: bytes) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield (regular expression for one byte, that byte if it can be no other); (None, None) for a star."""
    position = 0
    while position < len(pattern):
        byte = pattern[position : position + 1]
        if byte == b"*":
            yield None, None
        elif byte == b"?":
            yield _ANY_BYTE, None
        elif byte == b"[":
            members, position = _class(pattern, position + 1)
            yield _one_of(members), None
        else:
            if byte == b"\\" and position + 1 < len(pattern):
                position += 1
                byte = pattern[position : position + 1]
            yield re.escape(byte), byte
        position += 1


def _class(pattern: bytes, position: int) -> tuple[set[int], int]:
    """Return the bytes of the class whose first byte is at *position*, and where its ``]`` stands."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members: set[int] = set()
    while position < len(pattern) and pattern[position] != 0x5D:  # "]"
        if pattern[position] == 0x5C and position + 1 < len(pattern):  # "\"
            position += 1
            members.add(pattern[position])
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            low, high = sorted((pattern[position], pattern[position + 2]))
            members.update(range(low, high + 1))
            position += 2
        else:
            members.add(pattern[position])
        position += 1
    return (set(range(256)) - members if negated else members), position


def _one_of(members: set[int]) -> bytes:
    if not members:
        return b"(?!)[\\x00-\\xff]"
    return b"[" + b"".join(b"\\x%02x" % member for member in sorted(members)) + b"]"
