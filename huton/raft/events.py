"""All that can happen to a core. A driver turns the world into these, one at a time."""

from __future__ import annotations

import attrs

from huton.raft.messages import Message
from huton.raft.types import Entry, Index, NodeId, RequestId

__all__ = [
    "Applied",
    "Event",
    "LogRead",
    "PeerUnreachable",
    "PersistFailed",
    "Persisted",
    "Propose",
    "ReadIndex",
    "Receive",
    "Timeout",
]


@attrs.frozen
class Timeout:
    """``deadline()`` has passed. Early or late ones do no harm."""


@attrs.frozen
class Receive:
    """A message arrived from ``sender``, who is who it says it is and addressed this very node."""

    sender: NodeId
    message: Message


@attrs.frozen
class Propose:
    """Append these commands if this node leads.

    Each request ends in exactly one ``Committed``, ``Rejected`` or ``Undecided``.
    """

    requests: tuple[tuple[RequestId, bytes], ...]


@attrs.frozen
class ReadIndex:
    """Confirm leadership for these reads (thesis §6.4).

    Each request ends in exactly one ``ReadReady`` or ``Rejected``.
    """

    requests: tuple[RequestId, ...]


@attrs.frozen
class Persisted:
    """The ``Persist`` with this ``seq``, and every earlier one, is on disk and synced (D3)."""

    seq: int


@attrs.frozen
class PersistFailed:
    """A sync failed: nothing from ``seq`` on may be counted as durable, ever, in this run (D6).

    Every open request is answered and the core halts; the driver ends the process.
    """

    seq: int
    error: str


@attrs.frozen
class Applied:
    """The state machine holds everything up to ``index``."""

    index: Index


@attrs.frozen
class LogRead:
    """What a ``ReadLog`` found: entries from ``first_index`` on, at least one."""

    first_index: Index
    entries: tuple[Entry, ...]


@attrs.frozen
class PeerUnreachable:
    """The link to ``peer`` broke; what was in flight to it is probably lost."""

    peer: NodeId


Event = Timeout | Receive | Propose | ReadIndex | Persisted | PersistFailed | Applied | LogRead | PeerUnreachable
