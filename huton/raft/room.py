"""A disk that is full: no new commands, everything else goes on.

A driver looks ahead. When room gets scarce it says so (``RoomChanged``), and a write that would take too much it
refuses before it touches the disk (``PersistDeferred``). What is reserved beyond that serves what a member can't do
without: terms, votes, a new leader's no-op, and compaction, which makes room.

Source: D6; for the leader's part, a member that can't take part in commits holds everybody up, as in thesis §6.2.
"""

from __future__ import annotations

from huton.raft.events import PersistDeferred, RoomChanged
from huton.raft.state import RaftState
from huton.raft.types import Index, Role

__all__ = ["defer", "room_changed"]


def room_changed(state: RaftState, now: int, event: RoomChanged) -> None:
    """There is room for commands again, or none any more; then a leader makes way for a member that has some.

    If the others have no more room it leads again, and refuses commands, so that reads can go on.
    """
    if event.enough == (not state.full):
        return
    state.full = not event.enough
    if state.full and state.role is Role.LEADER and state.peers:
        state.become_follower(now, state.current_term, None)


def defer(state: RaftState, now: int, event: PersistDeferred) -> None:
    """No write from ``event.seq`` on will be done: go on from what is on disk, as after a restart.

    What is dropped was never acknowledged (R3). If the disk has other entries in the place of those that were to be
    written, they are cut off with the next write: their leader's successor has replaced them, so nobody commits them.
    """
    assert state.restoring is None, "a snapshot makes room"
    if state.role is not Role.FOLLOWER:
        state.become_follower(now, state.current_term, None)
    durable = state.durability.index
    if state.log.last_index > durable:
        state.log.truncate(Index(durable + 1))
    state.durability.defer()
    state.commit_index = min(state.commit_index, durable)
    state.matched = min(state.matched, durable)
    state.owes_reply = False
    state.full = True
