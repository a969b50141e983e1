"""Every byte that leaves memory for a peer: handshakes, messages, entries, requests, frames."""

from __future__ import annotations

from huton.wire.birth import (
    BirthAborted,
    BirthDecided,
    BirthElsewhere,
    BirthMessage,
    BirthNotice,
    BirthProposal,
    decode_birth,
    encode_birth,
)
from huton.wire.frames import FRAME_BYTES_MAX, HELLO_BYTES_MAX, Frame, FrameKind, FrameReader, encode_frame
from huton.wire.handshake import (
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    Hello,
    Refusal,
    RefusalReason,
    common_version,
    decode_handshake,
    encode_handshake,
    member_name,
)
from huton.wire.messages import (
    ForwardReads,
    ForwardWrites,
    Outcome,
    OutcomeStatus,
    PeerMessage,
    ReadAnswers,
    WriteAnswers,
    decode_message,
    encode_message,
)

__all__ = [
    "FRAME_BYTES_MAX",
    "HELLO_BYTES_MAX",
    "PROTOCOL_VERSION_MAX",
    "PROTOCOL_VERSION_MIN",
    "BirthAborted",
    "BirthDecided",
    "BirthElsewhere",
    "BirthMessage",
    "BirthNotice",
    "BirthProposal",
    "ForwardReads",
    "ForwardWrites",
    "Frame",
    "FrameKind",
    "FrameReader",
    "Hello",
    "Outcome",
    "OutcomeStatus",
    "PeerMessage",
    "ReadAnswers",
    "Refusal",
    "RefusalReason",
    "WriteAnswers",
    "common_version",
    "decode_birth",
    "decode_handshake",
    "decode_message",
    "encode_birth",
    "encode_frame",
    "encode_handshake",
    "encode_message",
    "member_name",
]
