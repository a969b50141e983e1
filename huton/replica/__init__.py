"""Raft + state machine + callers' requests, still without I/O: what both drivers drive."""

from huton.replica.contract import (
    Answer,
    Checkpoint,
    Checkpointed,
    Effect,
    Event,
    PeerReachable,
    Read,
    Receive,
    ReplicaConfig,
    Send,
    SnapshotPersisted,
    Submit,
    ViewReady,
)
from huton.replica.replica import Replica

__all__ = [
    "Answer",
    "Checkpoint",
    "Checkpointed",
    "Effect",
    "Event",
    "PeerReachable",
    "Read",
    "Receive",
    "Replica",
    "ReplicaConfig",
    "Send",
    "SnapshotPersisted",
    "Submit",
    "ViewReady",
]
