"""What must hold in every run, checked while it happens.

*Of a state*: one leader a term, logs that match, a commit index within the log. *Between two states*: terms and
commit indexes never fall, a leader never rewrites its log. *Of what is said*: whoever votes or acknowledges
has it on disk at that very moment, so that a promise too early is caught without the crash that would expose it.

All members are held to one canonical list of committed entries: the first that commits an entry decides, and
no other may ever differ. Source: Raft paper, Figure 3; rules R1 to R4 of ``docs/architecture.md``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from huton.kv.statemachine import FIRST_KEY, ApplyContext, StateReader
from huton.raft.effects import Persist
from huton.raft.events import PersistDeferred
from huton.raft.messages import AppendEntries, AppendEntriesReply, PreVote, PreVoteReply, RequestVote, RequestVoteReply
from huton.raft.types import Boot, HardState, Index, NodeId, Role, Snapshot, Term
from huton.replica import Effect, Event, Send
from huton.replica.sessions import Session
from huton.sim.replay import Replay

if TYPE_CHECKING:
    from huton.sim.member import SimMember
    from huton.sim.world import World

__all__ = ["Checks", "Violation"]

LOGS_EVERY: Final = 2000
"""Logs are compared whole, pair by pair, every so many steps."""


class Violation(Exception):
    """A check fired.

    Attributes:
        check: the name of the check.
        evidence: what it saw, as a sentence.
    """

    def __init__(self, check: str, evidence: str) -> None:
        super().__init__(f"{check}: {evidence}")
        self.check = check
        self.evidence = evidence


@attrs.define
class Seen:
    """What was last seen of one process."""

    term: Term
    voted_for: NodeId | None
    role: Role
    commit_index: Index
    applied: Index


class Checks:
    """All checks of one run.

    Attributes:
        committed: the terms of the canonical committed entries, from entry 1 on.
        outcomes: per log index of a command, the command and what came of it.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[str, Seen] = {}
        self._leaders: dict[Term, str] = {}
        self._votes: dict[tuple[str, Term], NodeId] = {}
        self._said: dict[str, Term] = {}
        # Per term the newest round of confirmation that its leader has sent.
        self._rounds: dict[Term, int] = {}
        self._steps = 0
        self._found: Violation | None = None
        self.committed: list[Term] = []
        # Per committed entry the term in which it was: that of the leader who committed it, its own or a later one.
        self._committed_in: list[Term] = []
        self.outcomes: dict[int, tuple[bytes, bytes]] = {}
        self._index_of: dict[bytes, int] = {}
        self._replay = Replay()

    def index_of(self, command: bytes) -> int | None:
        """Return the log index at which *command* was carried out, or None if it never was."""
        return self._index_of.get(command)

    # ------------------------------------------------------------------ life and death

    def started(self, member: SimMember, boot: Boot) -> None:
        """A process begins; what it remembers must be no less than what was said before (R4)."""
        if boot.hard_state.term < self._said.get(member.name, 0):
            said = self._said[member.name]
            raise Violation(
                "term-durable", f"{member.name} spoke in term {said}, and woke up in {boot.hard_state.term}"
            )
        hard_state = boot.hard_state
        self._seen[member.name] = Seen(hard_state.term, hard_state.voted_for, Role.FOLLOWER, boot.applied, boot.applied)

    def crashed(self, member: SimMember) -> None:
        """A process ended."""
        self._seen.pop(member.name, None)

    # ------------------------------------------------------------------ one step

    def stepped(self, member: SimMember, event: Event, effects: Sequence[Effect]) -> None:
        """A process took *event* in, and asks for *effects*, none of which has begun."""
        assert member.replica is not None
        if self._found is not None:
            raise self._found
        state = member.replica.raft.state
        seen = self._seen[member.name]
        led = seen.role is Role.LEADER and state.role is Role.LEADER and seen.term == state.current_term
        for effect in effects:
            if isinstance(effect, Send):
                self._check_said(member, effect)
            elif isinstance(effect, Persist) and effect.truncate_from is not None and led:
                raise Violation("leader-append-only", f"{member.name} leads term {state.current_term}, and truncates")
        if isinstance(event, PersistDeferred):
            # As after a restart, the commit index is learnt anew (R9).
            seen.commit_index = min(seen.commit_index, state.commit_index)
        if state.current_term < seen.term:
            raise Violation("monotonic-term", f"{member.name} went from term {seen.term} to {state.current_term}")
        if state.current_term == seen.term and seen.voted_for not in (None, state.voted_for):
            raise Violation(
                "vote-once", f"{member.name} forgets in term {seen.term} that it voted for {seen.voted_for}"
            )
        if state.commit_index < seen.commit_index or state.applied < seen.applied:
            raise Violation("monotonic-commit", f"{member.name}'s commit or applied index fell")
        if not state.applied <= state.commit_index <= state.log.last_index:
            raise Violation(
                "indexes",
                f"{member.name}: applied {state.applied}, commit {state.commit_index}, last {state.log.last_index}",
            )
        if state.role is Role.LEADER and not led:
            self._check_new_leader(member)
        if state.role is Role.LEADER:
            self._check_match(member)
        if state.commit_index > seen.commit_index:
            self._check_commit(member, seen.commit_index)
            if state.role is Role.LEADER:
                self._check_own_term(member, state.commit_index)
                self._world.happened("committed", member)
        seen.term, seen.voted_for, seen.role = state.current_term, state.voted_for, state.role
        seen.commit_index, seen.applied = state.commit_index, state.applied
        self._steps += 1
        if self._steps % LOGS_EVERY == 0:
            self.compare_logs()

    def _check_said(self, member: SimMember, send: Send) -> None:
        """Whoever promises has it on disk now (R1 to R4)."""
        name, message, durable = member.name, send.message, member.storage.durable_hard_state
        if isinstance(message, AppendEntries):
            self._rounds[message.term] = max(self._rounds.get(message.term, 0), message.round)
        elif isinstance(message, AppendEntriesReply) and message.round > self._rounds.get(message.term, 0):
            raise Violation(
                "round-echo", f"{name} echoes round {message.round} of term {message.term}, which nobody has sent"
            )
        match message:
            case PreVote() | PreVoteReply(granted=True):
                return
            case RequestVoteReply(granted=True):
                self._check_vote(name, message.term, send.to, durable)
            case RequestVote():
                self._check_vote(name, message.term, member.storage.identity.node_id, durable)
                if not member.storage.holds(message.last_log_index, message.last_log_term):
                    raise Violation("vote-durable", f"{name} campaigns with entries that are not on its disk (R2)")
            case AppendEntriesReply(success=True) if message.index:
                if not self._acknowledges_truly(member, message.index):
                    raise Violation(
                        "ack-durable", f"{name} acknowledges {message.index}, which is not on its disk (R3)"
                    )
                self._check_acknowledged(member, self._world.members[self._world.names[send.to]], message)
            case AppendEntries() | AppendEntriesReply() | RequestVoteReply() | PreVoteReply():
                pass
            case _:
                return
        if message.term > durable.term:
            raise Violation("term-durable", f"{name} speaks in term {message.term}; its disk knows {durable.term} (R4)")
        self._said[name] = max(self._said.get(name, Term(0)), message.term)

    def _acknowledges_truly(self, member: SimMember, index: Index) -> bool:
        assert member.replica is not None
        term = member.replica.raft.state.log.term_at(index)
        # What is about to be replaced by a snapshot is still there, and no log in memory speaks of it.
        return member.storage.durable_last_index >= index if term is None else member.storage.holds(index, term)

    def _check_acknowledged(self, member: SimMember, leader: SimMember, reply: AppendEntriesReply) -> None:
        """What is acknowledged to a leader is what it has there itself, as long as it leads that term."""
        if leader.replica is None:
            return
        state, term = leader.replica.raft.state, member.storage.durable_term_at(reply.index)
        leads = state.role is Role.LEADER and state.current_term == reply.term
        if leads and reply.index > state.log.base_index and term not in (None, state.log.term_at(reply.index)):
            raise Violation(
                "ack-matches",
                f"{member.name} acknowledges {reply.index} of term {term}, {leader.name} has another there",
            )

    def _check_vote(self, name: str, term: Term, candidate: NodeId, durable: HardState) -> None:
        if durable.term == term and durable.voted_for != candidate:
            raise Violation(
                "vote-durable", f"{name} votes for {candidate} in term {term}, and its disk does not know (R1)"
            )
        earlier = self._votes.setdefault((name, term), candidate)
        if earlier != candidate:
            raise Violation("vote-once", f"{name} votes in term {term} for {candidate} after {earlier}")

    def _check_new_leader(self, member: SimMember) -> None:
        """Election Safety, and Leader Completeness against all that is committed (Figure 3)."""
        assert member.replica is not None
        state = member.replica.raft.state
        other = self._leaders.setdefault(state.current_term, member.name)
        if other != member.name:
            raise Violation("election-safety", f"{other} and {member.name} both lead term {state.current_term}")
        self._check_elected(member)
        # A leader of a former term may be elected late, by votes that were long under way, and lack what came after it.
        binding = bisect_left(self._committed_in, state.current_term)
        # What its log no longer holds it has applied.
        base = state.log.base_index
        for index, term in enumerate(self.committed[:binding][max(0, base - 1) :], start=max(1, base)):
            if state.log.term_at(Index(index)) != term:
                raise Violation(
                    "leader-completeness",
                    f"{member.name} leads term {state.current_term} without committed entry {index} of term {term}",
                )

    def _check_match(self, member: SimMember) -> None:
        """What a leader counts as replicated to a follower of its term is on that one's disk (Figure 2, matchIndex)."""
        assert member.replica is not None
        state = member.replica.raft.state
        for id, progress in state.progress.items():
            storage = self._world.members[self._world.names[id]].storage
            if progress.match_index > storage.durable_last_index and (
                storage.durable_hard_state.term == state.current_term
            ):
                raise Violation(
                    "match-durable", f"{member.name} counts {progress.match_index} as held by {storage.identity.name}"
                )

    def _check_elected(self, member: SimMember) -> None:
        """A candidate wins with the votes of a majority for this very term (§5.2); its own is on its disk."""
        assert member.replica is not None
        term, id = member.replica.raft.state.current_term, member.storage.identity.node_id
        own = member.storage.durable_hard_state == HardState(term, id)
        others = [name for name in self._world.members if name != member.name and self._votes.get((name, term)) == id]
        if 2 * (own + len(others)) <= len(self._world.members):
            raise Violation("elected", f"{member.name} leads term {term} by the votes of {others} and its own")

    def _check_own_term(self, member: SimMember, index: Index) -> None:
        """Only log entries from the leader's current term are committed by counting replicas (§5.4.2)."""
        assert member.replica is not None
        state = member.replica.raft.state
        term = state.log.term_at(index)
        if term != state.current_term:
            raise Violation(
                "commits-own-term", f"{member.name} leads term {state.current_term}, and commits {index} of term {term}"
            )

    def _check_commit(self, member: SimMember, before: Index) -> None:
        """State Machine Safety, at the moment of commitment: the first to commit an entry decides it."""
        assert member.replica is not None
        state = member.replica.raft.state
        for number in range(before + 1, state.commit_index + 1):
            index = Index(number)
            term = state.log.term_at(index)
            if number < state.log.base_index and number <= len(self.committed):
                continue  # A snapshot has brought it.
            assert term is not None, "commit indexes lie within the log, and a snapshot holds what is committed"
            if number > len(self.committed):
                self._check_quorum(member, index, term)
                self.committed.append(term)
                self._committed_in.append(state.current_term)
            elif self.committed[number - 1] != term:
                other = self.committed[number - 1]
                raise Violation(
                    "state-machine-safety", f"{member.name} commits entry {index} of term {term}, not of term {other}"
                )

    def sends_again(self, member: SimMember, peer: str, term: Term, before: Term) -> None:
        """A leader of *term* has a snapshot sent to *peer* while one of the term *before* is under way."""
        if term == before:
            raise Violation("one-transfer", f"{member.name} has two snapshots of term {term} sent to {peer} at once")

    def _check_quorum(self, member: SimMember, index: Index, term: Term) -> None:
        members = self._world.members.values()
        holding = [other.name for other in members if other.storage.holds(index, term)]
        if 2 * len(holding) <= len(members):
            raise Violation(
                "commit-durable",
                f"{member.name} commits entry {index} of term {term}, which is on the disks of {holding} alone",
            )

    # ------------------------------------------------------------------ the state machine

    def applied(self, name: str, context: ApplyContext, command: bytes, answer: bytes) -> None:
        """A member carried *command* out: the same at this index as everybody else, and once.

        This is called from inside a state machine, whose exceptions are outcomes of commands: what is
        found is raised after the step.
        """
        if context.index not in self.outcomes:
            self._replay.add(context, command)
        first = self.outcomes.setdefault(context.index, (command, answer))
        if first != (command, answer):
            was = f"{first[0]!r} with {first[1]!r}"
            self._found = Violation(
                "state-machine-safety", f"{name} applied {command!r} with {answer!r} at {context.index}, another {was}"
            )
        at = self._index_of.setdefault(command, context.index)
        if at != context.index:
            self._found = Violation("exactly-once", f"{command!r} was carried out at {at} and again at {context.index}")

    def restored(self, name: str, snapshot: Snapshot, state: StateReader) -> None:
        """A member put *state* in the place of its own: it is what all commands up to *snapshot* make."""
        if snapshot.index > len(self.committed) or self.committed[snapshot.index - 1] != snapshot.term:
            raise Violation("snapshot-committed", f"{name} restored {snapshot.index}, which nobody has committed")
        if list(state.scan(FIRST_KEY, None)) != self._replay.state_at(snapshot.index):
            raise Violation("snapshot-equals-replay", f"{name} restored a state of {snapshot.index} that is not that")

    # ------------------------------------------------------------------ whole logs and states

    def compare_logs(self) -> None:
        """Log Matching (Figure 3): where two logs have the same term at an index, they agree up to there."""
        logs = [(member.name, member.storage.base, member.storage.entries) for member in self._world.members.values()]
        for position, (name, base, entries) in enumerate(logs):
            for other_name, other_base, other_entries in logs[position + 1 :]:
                first = max(base.index, other_base.index)
                own, other = entries[first - base.index :], other_entries[first - other_base.index :]
                last = min(len(own), len(other))
                while last and own[last - 1].term != other[last - 1].term:
                    last -= 1
                if own[:last] != other[:last]:
                    agree = first + last
                    raise Violation("log-matching", f"{name} and {other_name} agree at {agree}, and differ below it")

    def compare_states(self) -> None:
        """Members that applied the same entries hold the same state."""
        states: dict[Index, tuple[str, list[tuple[bytes, bytes]], dict[int, Session]]] = {}
        for member in self._world.members.values():
            if member.replica is not None:
                state = list(member.replica.state.scan(b"", None))
                applied = member.replica.raft.state.applied
                sessions = member.replica.sessions.table
                other, expected, expected_sessions = states.setdefault(applied, (member.name, state, sessions))
                if state != expected or sessions != expected_sessions:
                    raise Violation("equal-states", f"{member.name} and {other} differ at index {applied}")
