"""The runtime's only door to the outside: clock, chance, network, storage, threads.

``runtime/`` and ``frontends/`` take all of these from one frozen ``Env`` that is passed down. The real one
is built by ``huton.runtime.environment.real_env``; the simulator builds its own and runs the same server code on
virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random  # noqa: TID251  # the type of Env.random, nothing is drawn here
from typing import Protocol, TypeVar

import attrs
import trio

from huton.storage.interface import Storage

__all__ = ["Clock", "Env", "Network", "Offload"]

T = TypeVar("T")


class Clock(Protocol):
    """Monotonic time in nanoseconds that goes on while the machine sleeps (CLOCK_BOOTTIME)."""

    def now(self) -> int: ...

    async def sleep_until(self, deadline_ns: int) -> None:
        """Return once ``now() >= deadline_ns``; always a checkpoint."""
        ...


class Network(Protocol):
    """TCP, or something that behaves like it."""

    async def listen(self, host: str, port: int) -> list[trio.abc.Listener[trio.abc.Stream]]:
        """Listen; port 0 picks a free one.

        Raises:
            OSError: the address can't be bound.
        """
        ...

    def bound_port(self, listener: trio.abc.Listener[trio.abc.Stream]) -> int:
        """Return the port that *listener*, which came from ``listen``, is bound to."""
        ...

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        ...


class Offload(Protocol):
    """Runs blocking calls away from the event loop."""

    async def run_sync(self, function: Callable[[], T]) -> T:
        """Run *function* in a thread of this node's own; not cancellable."""
        ...


@attrs.frozen(kw_only=True)
class Env:
    """Everything one node may know of the outside world.

    Attributes:
        clock: time.
        random: chance; seeded from the system in the real one.
        network: listeners and connections.
        open_storage: open (or make) the data directory of the node with this name; takes an
            incarnation to use if the directory is new. Raises ``StorageError``.
        offload: threads.
    """

    clock: Clock
    random: Random
    network: Network
    open_storage: Callable[[Path, str, bytes], Storage]
    offload: Offload
