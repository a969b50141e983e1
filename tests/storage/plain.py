"""The plainest states there are."""

from __future__ import annotations

from collections.abc import Iterator

from huton.storage.interface import PinnedState

__all__ = ["DictState", "scan_dict"]


class DictState:
    """A LiveState over *items*, which whoever made it may change."""

    def __init__(self, items: dict[bytes, bytes] | None = None) -> None:
        self.items = {} if items is None else items

    def get(self, key: bytes) -> bytes | None:
        return self.items.get(key)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return iter(scan_dict(self.items, start, stop, reverse))

    def pin(self) -> PinnedState:
        return DictState(dict(self.items))

    def close(self) -> None:
        self.items = {}


def scan_dict(items: dict[bytes, bytes], start: bytes, stop: bytes | None, reverse: bool) -> list[tuple[bytes, bytes]]:
    """Return the keys and values in the range."""
    found = [(key, value) for key, value in items.items() if key >= start and (stop is None or key < stop)]
    return sorted(found, reverse=reverse)
