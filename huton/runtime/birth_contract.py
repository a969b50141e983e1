"""What a driver tells the birth protocol, and what the protocol asks of its driver."""

from __future__ import annotations

import attrs

from huton.raft.types import Member, NodeId
from huton.storage.interface import Birth
from huton.wire import BirthMessage

__all__ = [
    "Born",
    "Effect",
    "Event",
    "Heard",
    "Met",
    "Report",
    "SaveBirth",
    "SavePledge",
    "Saved",
    "Tell",
    "Timeout",
]

# ---------------------------------------------------------------------- events


@attrs.frozen
class Met:
    """A handshake with this node went well, whoever dialled: it is told where we stand."""

    member: Member


@attrs.frozen
class Heard:
    """A message arrived from ``sender``, who is who it says it is."""

    sender: NodeId
    message: BirthMessage


@attrs.frozen
class Saved:
    """The one write that was asked for is on disk and synced."""


@attrs.frozen
class Timeout:
    """``deadline()`` has passed."""


Event = Met | Heard | Saved | Timeout

# ---------------------------------------------------------------------- effects


@attrs.frozen
class SavePledge:
    """Write this with ``storage.save_pledge``, then say ``Saved``. One write is asked for at a time."""

    pledge: bytes | None


@attrs.frozen
class SaveBirth:
    """Write this with ``storage.save_birth``, then say ``Saved``. One write is asked for at a time."""

    birth: Birth


@attrs.frozen
class Tell:
    """Try to deliver ``message``; it may be lost, delayed, doubled or reordered."""

    to: NodeId
    message: BirthMessage


@attrs.frozen
class Born:
    """This node durably belongs to a cluster now."""

    birth: Birth


@attrs.frozen
class Report:
    """Something that whoever runs this node should read.

    Attributes:
        urgent: whether somebody has to act.
    """

    text: str
    urgent: bool


Effect = SavePledge | SaveBirth | Tell | Born | Report
