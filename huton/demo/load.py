"""Clients that write as fast as they are answered, and remember exactly what they were told."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

import attrs

from huton.client import Client
from huton.errors import HutonError, OutcomeUnknown

__all__ = ["Load"]

PAUSE: Final = 0.005
"""Seconds between an answer and the next write of one client; the demo wants a rhythm, not a benchmark."""


@attrs.define
class _Writer:
    """One client and its memory; only its own thread writes here."""

    number: int
    clients: list[Client]
    acknowledged: dict[bytes, bytes] = attrs.field(factory=dict)
    times: list[float] = attrs.field(factory=list)
    unknown: int = 0
    refused: int = 0

    def run(self, bucket: str, prefix: str, stop: threading.Event) -> None:
        """Write one key after the other, at the next node whenever one doesn't take it."""
        sequence = 0
        while not stop.wait(PAUSE):
            sequence += 1
            key = f"{prefix}{self.number}/{sequence:06d}".encode()
            value = f"written by client {self.number} as its write {sequence}".encode()
            try:
                self.clients[0].set(bucket, key, value)
            except OutcomeUnknown:
                self.unknown += 1
            except HutonError:
                self.refused += 1
            else:
                self.acknowledged[key] = value
                self.times.append(time.monotonic())
                continue
            self.clients.append(self.clients.pop(0))


class Load:
    """One writing client per node, from ``start`` to ``stop``; each prefers its own node."""

    def __init__(self, clients: Sequence[Client], *, bucket: str, prefix: str) -> None:
        self._writers = [_Writer(n + 1, [*clients[n:], *clients[:n]]) for n in range(len(clients))]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=writer.run, args=(bucket, prefix, self._stop), daemon=True)
            for writer in self._writers
        ]

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, after the answers that are still under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def written_since(self, moment: float) -> bool:
        """Tell whether any write was acknowledged after *moment* (as ``time.monotonic`` counts)."""
        return any(writer.times and writer.times[-1] > moment for writer in self._writers)

    def longest_pause(self, start: float) -> float:
        """Return the longest time without an acknowledged write, in seconds, from *start* to the last one."""
        times = sorted(moment for writer in self._writers for moment in writer.times if moment > start)
        return max((after - before for before, after in zip([start, *times], times, strict=False)), default=0.0)

    @property
    def acknowledged(self) -> dict[bytes, bytes]:
        """Everything the nodes said they have; call it after ``stop``."""
        return {key: value for writer in self._writers for key, value in writer.acknowledged.items()}

    @property
    def unknown(self) -> int:
        """How many writes may or may not have happened."""
        return sum(writer.unknown for writer in self._writers)
