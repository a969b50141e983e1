"""A run as text that a person can read and compare: one line for each thing that happened.

2.314907s n1 leader    T7 log 12 commit 11 | AppendEntriesReply from n3 ok 12 -> Answer, Send n2 AppendEntries
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from huton.raft.effects import Persist, RoleChanged
from huton.raft.messages import AppendEntries, AppendEntriesReply, PreVoteReply, RequestVoteReply
from huton.raft.state import RaftState
from huton.raft.types import NodeId
from huton.replica import Answer, Effect, Event, Receive, Send
from huton.sim.schedule import NS, Fault, show_duration
from huton.wire import PeerMessage

__all__ = ["Trace"]


class Trace:
    """Writes what happens to *out*, or nowhere if that is None."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out

    def text(self, now: int, text: str) -> None:
        """Write one line."""
        if self._out is not None:
            self._out.write(f"{now / NS:.6f}s {text}\n")

    def happened(self, now: int, event: str, name: str) -> None:
        """Write that a member died or came back; other events show in its steps."""
        if self._out is not None and event in ("crashed", "lost_unsynced", "restarted"):
            self.text(now, f"{name} {event.replace('_', ' ')}")

    def fault(self, now: int, fault: Fault) -> None:
        """Write that a fault begins, and whom it strikes."""
        if self._out is not None:
            words = [
                f"fault {fault.id}:",
                fault.do,
                fault.node or " | ".join(" ".join(group) for group in fault.groups),
            ]
            if fault.amount:
                words.append(f"by {fault.amount:g}")
            words.append(f"for {show_duration(fault.for_ns)}")
            self.text(now, " ".join(word for word in words if word))

    def stepped(self, now: int, name: str, event: Event, effects: Sequence[Effect], state: RaftState) -> None:
        """Write one step: where the member stands after it, what it took in, and what it asks for."""
        if self._out is None:
            return
        where = f"{name} {state.role.value:<13} T{state.current_term} log {state.log.last_index}"
        line = f"{where} commit {state.commit_index} | {_event(event)}"
        asked = ", ".join(_effect(effect) for effect in effects)
        self.text(now, f"{line} -> {asked}" if asked else line)


def _event(event: Event) -> str:
    if isinstance(event, Receive):
        return f"{_message(event.message)} from {_name(event.sender)}"
    return type(event).__name__


def _effect(effect: Effect) -> str:
    match effect:
        case Send():
            return f"Send {_name(effect.to)} {_message(effect.message)}"
        case Persist():
            hard = f" T{effect.hard_state.term} vote {_name(effect.hard_state.voted_for)}" if effect.hard_state else ""
            cut = f" cut {effect.truncate_from}" if effect.truncate_from is not None else ""
            entries = f" [{effect.first_index}+{len(effect.entries)}]" if effect.entries else ""
            return f"Persist #{effect.seq}{hard}{cut}{entries}"
        case RoleChanged():
            return f"now {effect.role.value}"
        case Answer():
            return f"Answer {effect.id} {'ok' if isinstance(effect.result, bytes) else type(effect.result).__name__}"
        case _:
            return type(effect).__name__


def _message(message: PeerMessage) -> str:
    name = type(message).__name__
    match message:
        case AppendEntries():
            return (
                f"{name} T{message.term} after {message.prev_log_index}/T{message.prev_log_term}"
                f" +{len(message.entries)} commit {message.leader_commit} round {message.round}"
            )
        case AppendEntriesReply():
            verdict = "ok" if message.success else f"no, try {message.hint_index}/T{message.hint_term},"
            return f"{name} T{message.term} {verdict} {message.index} round {message.round}"
        case RequestVoteReply() | PreVoteReply():
            return f"{name} T{message.term} {'granted' if message.granted else 'refused'}"
        case _:
            term = getattr(message, "term", None)
            return name if term is None else f"{name} T{term}"


def _name(id: NodeId | None) -> str:
    return "-" if id is None else id.partition("#")[0]
