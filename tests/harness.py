"""Builders for tests of the core: cores with a past, events in one line, and what a list of effects holds.

Every core is driven through ``step`` alone, as a driver would; nothing here looks inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypedDict, TypeVar, Unpack

import attrs

from huton.raft import Raft
from huton.raft.effects import Apply, Effect, Persist, Send
from huton.raft.events import Applied, Persisted, Propose, ReadIndex, Receive, Timeout
from huton.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from huton.raft.types import (
    Boot,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    Member,
    NodeId,
    RaftConfig,
    RequestId,
    Role,
    Snapshot,
    Term,
    TermRun,
)

ELECTION: Final = 1_000_000_000
"""The election timeout, in nanoseconds; constant unless a test injects its own chance."""

HEARTBEAT: Final = 100_000_000
BOOTED: Final = 50_000_000_000
"""When the cores of these builders take in their first event, if they are driven into an election."""

NOW: Final = BOOTED + ELECTION
"""The moment at which their first election timeout is over; the present of most tests."""

N1, N2, N3, N4, N5 = (NodeId(f"n{number}") for number in range(1, 6))
ALL: Final = (N1, N2, N3, N4, N5)

T = TypeVar("T")


class Settings(TypedDict, total=False):
    """The fields of ``RaftConfig`` that a test may change."""

    append_bytes_max: int
    inflight_bytes_max: int
    inflight_messages_max: int
    uncommitted_bytes_max: int
    window_bytes_max: int
    log_entries_kept: int
    log_bytes_kept: int
    compact_entries: int


# ------------------------------------------------------------------ nouns


def entry_of(term: int, index: int) -> Entry:
    """Return the one entry that tests put at *index* in *term*; two logs that agree in both agree in it."""
    return Entry(Term(term), EntryKind.COMMAND, stamp=index, data=f"{term}.{index}".encode())


def entries_of(terms: Sequence[int], first: int = 1) -> tuple[Entry, ...]:
    """Return entries of *terms*, the first of them at index *first*."""
    return tuple(entry_of(term, first + position) for position, term in enumerate(terms))


def runs_of(terms: Sequence[int]) -> tuple[TermRun, ...]:
    """Return where in *terms* (of entries 1 and up) each term begins."""
    return tuple(
        TermRun(Index(index), Term(term))
        for index, term in enumerate(terms, start=1)
        if index == 1 or terms[index - 2] != term
    )


def configuration_of(size: int) -> Configuration:
    return Configuration(tuple(Member(id, f"{id}:7000") for id in ALL[:size]))


def boot_of(
    entries: Sequence[Entry],
    hard_state: HardState,
    *,
    applied: int = 0,
    size: int = 3,
    base: int = 0,
) -> Boot:
    """Return what a disk recovers to, among *size* members.

    Args:
        entries: all there ever were, from entry 1 on.
        base: up to which the log was compacted.
    """
    runs = runs_of([entry.term for entry in entries[base:]])
    return Boot(
        hard_state=hard_state,
        snapshot=snapshot_of(entries, base, size=size),
        term_runs=tuple(TermRun(Index(run.first_index + base), run.term) for run in runs),
        sizes=(),
        last_index=Index(len(entries)),
        last_stamp=entries[-1].stamp if entries else 0,
        applied=Index(max(applied, base)),
    )


def snapshot_of(entries: Sequence[Entry], index: int, *, size: int = 3) -> Snapshot:
    """Return what stands for *entries* (1 and up) up to *index*."""
    if index == 0:
        return Snapshot(Index(0), Term(0), 0, configuration_of(size))
    return Snapshot(Index(index), entries[index - 1].term, entries[index - 1].stamp, configuration_of(size))


def make_raft(
    id: NodeId = N1,
    *,
    log_terms: Sequence[int] = (),
    term: int | None = None,
    voted_for: NodeId | None = None,
    applied: int = 0,
    size: int = 3,
    timeouts: Callable[[], int] = lambda: ELECTION,
    **settings: Unpack[Settings],
) -> Raft:
    """Return a core that has just booted among *size* members with a log of *log_terms*.

    Args:
        term: its durable term; that of its last entry by default.
        settings: fields of ``RaftConfig``.
    """
    entries = entries_of(log_terms)
    hard_state = HardState(Term(term if term is not None else max(log_terms, default=0)), voted_for)
    config = attrs.evolve(RaftConfig(id=id, election_timeout_ns=ELECTION, heartbeat_interval_ns=HEARTBEAT), **settings)
    return Raft(config, boot_of(entries, hard_state, applied=applied, size=size), timeouts)


# ------------------------------------------------------------- roles, by events alone


def pre_campaign(raft: Raft) -> list[Effect]:
    """Let the first election timeout of a booted core pass: it becomes a pre-candidate at ``NOW``."""
    raft.step(BOOTED, Timeout())
    return raft.step(NOW, Timeout())


def campaign(raft: Raft) -> list[Effect]:
    """Make a booted core a candidate at ``NOW``; return the effects of the step that did, nothing durable yet."""
    effects = pre_campaign(raft)
    for peer in peers_of(raft):
        if raft.status().role is not Role.PRE_CANDIDATE:
            break
        effects = raft.step(NOW, pre_vote_reply(peer, raft.status().term + 1))
    assert raft.status().role is Role.CANDIDATE
    return effects


def win(raft: Raft) -> list[Effect]:
    """Make a booted core leader at ``NOW``; return the effects of the step that did, its no-op not yet durable."""
    effects = persisted(raft, campaign(raft))
    for peer in peers_of(raft):
        if raft.status().role is not Role.CANDIDATE:
            break
        effects = raft.step(NOW, vote(peer, raft.status().term))
    assert raft.status().role is Role.LEADER
    return effects


def make_candidate(
    *, term: int = 1, log_terms: Sequence[int] = (), size: int = 3, **settings: Unpack[Settings]
) -> Raft:
    """Return N1, candidate in *term*, its vote durable and its requests sent."""
    raft = make_raft(log_terms=log_terms, term=term - 1, size=size, **settings)
    persisted(raft, campaign(raft))
    return raft


def make_leader(*, term: int = 1, log_terms: Sequence[int] = (), size: int = 3, **settings: Unpack[Settings]) -> Raft:
    """Return N1, leader of *term*; its no-op stands after *log_terms*, durable, acknowledged by nobody."""
    raft = make_raft(log_terms=log_terms, term=term - 1, size=size, **settings)
    persisted(raft, win(raft))
    return raft


def make_follower(*, term: int = 1, log_terms: Sequence[int] = (), leader: NodeId = N2, size: int = 3) -> Raft:
    """Return N1, which has just heard from *leader* of *term*, its term durable; the logs agree up to nowhere."""
    raft = make_raft(log_terms=log_terms, term=term, size=size)
    raft.step(NOW, append(leader, term))
    assert raft.status().role is Role.FOLLOWER
    return raft


def make_working_leader(
    *, term: int = 1, log_terms: Sequence[int] = (), size: int = 3, applies: bool = True, **settings: Unpack[Settings]
) -> Raft:
    """Return N1, leader of *term*, whose no-op every follower has acknowledged."""
    raft = make_leader(term=term, log_terms=log_terms, size=size, **settings)
    last = raft.status().last_index
    for peer in peers_of(raft):
        effects = raft.step(NOW, acknowledgement(peer, term, last))
        if applies:
            applied(raft, effects)
    assert raft.status().commit_index == last
    return raft


def peers_of(raft: Raft) -> list[NodeId]:
    status = raft.status()
    return [voter for voter in status.configuration.voters if voter != status.id]


# ------------------------------------------------------------------- events


def pre_vote(sender: NodeId, term: int, *, last_log: tuple[int, int] = (0, 0)) -> Receive:
    """*last_log* is (term, index), as everywhere here."""
    message = PreVote(term=Term(term), last_log_index=Index(last_log[1]), last_log_term=Term(last_log[0]))
    return Receive(sender, message)


def pre_vote_reply(sender: NodeId, term: int, *, granted: bool = True) -> Receive:
    return Receive(sender, PreVoteReply(term=Term(term), granted=granted))


def request_vote(sender: NodeId, term: int, *, last_log: tuple[int, int] = (0, 0)) -> Receive:
    message = RequestVote(term=Term(term), last_log_index=Index(last_log[1]), last_log_term=Term(last_log[0]))
    return Receive(sender, message)


def vote(sender: NodeId, term: int, *, granted: bool = True) -> Receive:
    return Receive(sender, RequestVoteReply(term=Term(term), granted=granted))


def append(
    sender: NodeId,
    term: int,
    *,
    prev: tuple[int, int] = (0, 0),
    terms: Sequence[int] = (),
    commit: int = 0,
    round: int = 0,
) -> Receive:
    """An AppendEntries with entries of *terms* after *prev* (term, index)."""
    message = AppendEntries(
        term=Term(term),
        prev_log_index=Index(prev[1]),
        prev_log_term=Term(prev[0]),
        leader_commit=Index(commit),
        round=round,
        entries=entries_of(terms, prev[1] + 1),
    )
    return Receive(sender, message)


def acknowledgement(sender: NodeId, term: int, index: int, *, round: int = 0) -> Receive:
    return Receive(sender, matched(term, index, round=round))


def refusal(sender: NodeId, term: int, index: int, *, hint: tuple[int, int], round: int = 0) -> Receive:
    """A rejected AppendEntries whose prev was *index*; *hint* is (term, index)."""
    return Receive(sender, unmatched(term, index, hint=hint, round=round))


def propose(*commands: bytes, first_id: int = 1) -> Propose:
    """Propose *commands* under ids from *first_id* on."""
    return Propose(tuple((RequestId(first_id + position), command) for position, command in enumerate(commands)))


def read(*ids: int) -> ReadIndex:
    return ReadIndex(tuple(RequestId(id) for id in ids))


def matched(term: int, index: int, *, round: int = 0) -> AppendEntriesReply:
    return AppendEntriesReply(
        term=Term(term), round=round, success=True, index=Index(index), hint_index=Index(0), hint_term=Term(0)
    )


def unmatched(term: int, index: int, *, hint: tuple[int, int], round: int = 0) -> AppendEntriesReply:
    return AppendEntriesReply(
        term=Term(term),
        round=round,
        success=False,
        index=Index(index),
        hint_index=Index(hint[1]),
        hint_term=Term(hint[0]),
    )


# ------------------------------------------------------------------ effects


def only(effects: Iterable[Effect], kind: type[T]) -> list[T]:
    """Return the *effects* of this *kind*, in order."""
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects: Iterable[Effect], to: NodeId | None = None) -> list[Message]:
    """Return the messages among *effects*, in order; only those addressed *to* somebody, if given."""
    return [effect.message for effect in only(effects, Send) if to is None or effect.to == to]


def appends(effects: Iterable[Effect], to: NodeId | None = None) -> list[AppendEntries]:
    """Return the AppendEntries among *effects*."""
    return [message for message in sent(effects, to) if isinstance(message, AppendEntries)]


def persisted(raft: Raft, effects: Sequence[Effect], now: int = NOW) -> list[Effect]:
    """Let the disk finish all that *effects* asks of it, and what follows from that.

    Returns:
        *effects*, and after them all effects that followed.
    """
    everything = list(effects)
    position = 0
    while position < len(everything):
        effect = everything[position]
        if isinstance(effect, Persist):
            everything.extend(raft.step(now, Persisted(effect.seq)))
        position += 1
    return everything


def applied(raft: Raft, effects: Sequence[Effect], now: int = NOW) -> list[Effect]:
    """Let the state machine finish all that *effects* hands to it; return *effects* and what followed."""
    everything = list(effects)
    position = 0
    while position < len(everything):
        effect = everything[position]
        if isinstance(effect, Apply):
            everything.extend(raft.step(now, Applied(Index(effect.first_index + len(effect.entries) - 1))))
        position += 1
    return everything


def log_terms(raft: Raft, effects: Iterable[Effect]) -> tuple[int, ...]:
    """Return the terms of the entries that *effects* add to a log, in order."""
    return tuple(entry.term for persist in only(effects, Persist) for entry in persist.entries)
