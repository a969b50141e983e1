"""The core: Raft as a pure function of events, to be read beside the paper and the thesis."""

from huton.raft.core import Raft

__all__ = ["Raft"]
