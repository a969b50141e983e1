"""Where in the log its data lies: enough to say where its last so many bytes begin."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final

from huton.raft.types import Index, SizeMark

__all__ = ["MARK_BYTES", "LogSizes"]

MARK_BYTES: Final = 64 << 10
"""How far apart the marks are, and so how exact the answers: a log of 256 MiB has 4,096 marks."""


class LogSizes:
    """Marks along a log, one at each entry that completes ``MARK_BYTES`` since the last.

    Args:
        marks: what ``marks`` returned for the same log before.
    """

    def __init__(self, marks: Iterable[SizeMark] = ()) -> None:
        self._marks = list(marks)
        self._total = self._marked

    @property
    def marks(self) -> tuple[SizeMark, ...]:
        return tuple(self._marks)

    @property
    def _marked(self) -> int:
        return self._marks[-1].bytes if self._marks else 0

    def add(self, index: Index, size: int) -> None:
        """Entry *index*, the next one, has *size* bytes of data."""
        self._total += size
        if self._total - self._marked >= MARK_BYTES:
            self._marks.append(SizeMark(index, self._total))

    def truncate(self, first: Index) -> None:
        """Entry *first* and all after it are gone."""
        del self._marks[bisect_left(self._marks, first, key=_index) :]
        self._total = self._marked

    def compact(self, upto: Index) -> None:
        """Entry *upto* and all before it are gone."""
        del self._marks[: bisect_right(self._marks, upto, key=_index)]

    def index_before(self, size: int) -> Index:
        """Return the last mark's index behind which at least *size* bytes lie; 0 if there is none."""
        position = bisect_right(self._marks, self._total - size, key=lambda mark: mark.bytes)
        return self._marks[position - 1].index if position else Index(0)


def _index(mark: SizeMark) -> Index:
    return mark.index
