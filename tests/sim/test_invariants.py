"""Every check of the simulator fires on what it is there for, and on nothing else."""

from __future__ import annotations

import attrs
import pytest

from huton.kv.statemachine import ApplyContext
from huton.raft.effects import Persist
from huton.raft.events import Timeout
from huton.raft.messages import AppendEntries, AppendEntriesReply, Message, PreVote, RequestVote, RequestVoteReply
from huton.raft.state import RaftState
from huton.raft.types import Entry, EntryKind, HardState, Index, Role, Snapshot, Term
from huton.replica import Effect, Send
from huton.sim.invariants import Violation
from huton.sim.member import SimMember
from huton.sim.schedule import NS
from huton.sim.trace import Trace
from huton.sim.world import World
from tests.sim.worlds import calm_plan


class Halt(Exception):
    """The run has come to where the test begins."""


def halt() -> None:
    raise Halt


@pytest.fixture
def world() -> World:
    """Three members in the middle of a calm run, with a leader and some committed entries."""
    world = World(calm_plan(duration_ns=12 * NS), Trace(None))
    world.after(4 * NS, halt)
    with pytest.raises(Halt):
        world.run()
    return world


def leader_of(world: World) -> SimMember:
    leader = world.leader()
    assert leader is not None
    return leader


def follower_of(world: World) -> SimMember:
    return next(member for member in world.members.values() if member is not world.leader())


def core(member: SimMember) -> RaftState:
    assert member.replica is not None
    return member.replica.raft.state


def check(world: World, member: SimMember, *effects: Effect) -> None:
    """Have the checks look at *member* as it stands, after a step that asks for *effects*."""
    world.checks.stepped(member, Timeout(), effects)


def fires(name: str, evidence: str = "") -> pytest.RaisesExc[Violation]:
    """Return what expects the check *name* to fire, with *evidence* in its sentence."""
    return pytest.raises(Violation, match=f"^{name}: .*{evidence}")


def test_a_calm_run_is_fine(world: World) -> None:
    """No check fires on what is right; otherwise the others would prove nothing."""
    for member in world.members.values():
        check(world, member)
    world.checks.compare_logs()
    world.checks.compare_states()
    assert len(world.checks.committed) > 10
    assert core(leader_of(world)).role is Role.LEADER


# ------------------------------------------------------------------ of a state, and between two


def test_election_safety(world: World) -> None:
    """At most one leader can be elected in a given term. (Figure 3)"""
    other = follower_of(world)
    core(other).role = Role.LEADER
    with fires("election-safety", "both lead term"):
        check(world, other)


def test_leader_completeness(world: World) -> None:
    """A committed entry is present in the logs of the leaders of all higher terms. (Figure 3)"""
    follower = follower_of(world)
    state = core(follower)
    state.log.truncate(Index(5))
    state.commit_index = state.applied = Index(4)
    state.current_term = Term(state.current_term + 1)
    state.role = Role.LEADER
    world.checks.crashed(follower)
    world.checks.started(follower, attrs.evolve(follower.storage.recover(), applied=Index(0)))
    for name in world.members:
        world.checks._votes[name, state.current_term] = follower.storage.identity.node_id
    with fires("leader-completeness", "without committed entry 5"):
        check(world, follower)


def test_a_leader_has_the_votes_of_a_majority(world: World) -> None:
    """A candidate wins an election if it receives votes from a majority of the cluster for the same term. (§5.2)"""
    follower = follower_of(world)
    state = core(follower)
    # All of them have voted for it, in the term before; in this one it has its own vote alone.
    for name in world.members:
        world.checks._votes[name, state.current_term] = follower.storage.identity.node_id
    state.current_term = Term(state.current_term + 1)
    state.voted_for = follower.storage.identity.node_id
    on_disk(follower, state.hard_state)
    state.role = Role.LEADER
    with fires("elected", f"leads term {state.current_term} by the votes of \\[\\] and its own"):
        check(world, follower)


def test_only_entries_of_the_own_term_are_committed_by_counting(world: World) -> None:
    """Raft never commits log entries from previous terms by counting replicas. (§5.4.2)"""
    leader = leader_of(world)
    state = core(leader)
    terms = [Term(1)] * (len(world.checks.committed) + 1)
    state.log.append([entry(state.current_term)] * (len(terms) - state.log.last_index))
    state.current_term = Term(state.current_term + 1)
    state.role = Role.FOLLOWER
    check(world, leader)
    world.checks._seen[leader.name].role = state.role = Role.LEADER
    for member in world.members.values():
        member.storage._durable.entries.extend([entry(Term(1))] * (len(terms) - member.storage.durable_last_index))
    state.commit_index = Index(len(terms))
    with fires("commits-own-term", f"commits {len(terms)} of term 1"):
        check(world, leader)


def test_a_vote_is_not_forgotten_within_its_term(world: World) -> None:
    """votedFor: candidate that received vote in current term. (Figure 2)"""
    member = follower_of(world)
    assert core(member).voted_for is not None
    core(member).voted_for = None
    with fires("vote-once", "forgets in term 1 that it voted for"):
        check(world, member)
    core(member).current_term = higher(member)
    check(world, member)


def test_leader_append_only(world: World) -> None:
    """A leader never overwrites or deletes entries in its log. (Figure 3)"""
    leader = leader_of(world)
    last = core(leader).log.last_index
    truncation = Persist(seq=99_999, hard_state=None, truncate_from=last, first_index=Index(0), entries=())
    with fires("leader-append-only"):
        check(world, leader, truncation)
    check(world, follower_of(world), truncation)


def test_a_term_never_falls(world: World) -> None:
    """Current terms increase monotonically. (§5.1)"""
    member = follower_of(world)
    core(member).current_term = Term(core(member).current_term - 1)
    with fires("monotonic-term"):
        check(world, member)


@pytest.mark.parametrize("name", ["commit_index", "applied"])
def test_what_is_committed_stays_so(world: World, name: str) -> None:
    """commitIndex and lastApplied increase monotonically. (Figure 2)"""
    member = follower_of(world)
    setattr(core(member), name, getattr(core(member), name) - 1)
    with fires("monotonic-commit"):
        check(world, member)


def test_no_commit_beyond_the_log(world: World) -> None:
    """lastApplied <= commitIndex <= the last entry."""
    member = follower_of(world)
    core(member).commit_index = Index(core(member).log.last_index + 1)
    with fires("indexes"):
        check(world, member)


def test_a_commit_needs_the_disks_of_a_majority(world: World) -> None:
    """A log entry is committed once the leader that created it has replicated it on a majority. (§5.3)"""
    leader = leader_of(world)
    log = core(leader).log
    log.append((entry(core(leader).current_term),))
    core(leader).commit_index = log.last_index
    with fires("commit-durable", "on the disks of \\[\\] alone"):
        check(world, leader)


def test_state_machine_safety_at_commitment(world: World) -> None:
    """No other server will ever apply a different log entry for the same index. (Figure 3)"""
    member = follower_of(world)
    state = core(member)
    world.checks.committed.append(Term(state.current_term + 7))
    state.log.truncate(Index(len(world.checks.committed)))
    state.log.append((entry(state.current_term),) * (len(world.checks.committed) - state.log.last_index))
    state.commit_index = Index(len(world.checks.committed))
    with fires("state-machine-safety", f"not of term {state.current_term + 7}"):
        check(world, member)


def entry(term: Term) -> Entry:
    return Entry(term, EntryKind.NOOP, 0, b"")


# ------------------------------------------------------------------ of what is said


def said(world: World, member: SimMember, message: Message) -> None:
    to = next(id for id in world.names if id != member.storage.identity.node_id)
    check(world, member, Send(to, message))


def higher(member: SimMember) -> Term:
    return Term(core(member).current_term + 1)


def test_a_vote_is_on_disk_before_it_is_cast(world: World) -> None:
    """Persistent state: updated on stable storage before responding to RPCs. (Figure 2, R1)"""
    member = follower_of(world)
    term = member.storage.durable_hard_state.term
    stranger = next(id for id in world.names if id != member.storage.durable_hard_state.voted_for)
    with fires("vote-durable", "its disk does not know"):
        check(world, member, Send(stranger, RequestVoteReply(term=term, granted=True)))
    with fires("term-durable"):
        said(world, member, RequestVoteReply(term=higher(member), granted=True))


def test_one_vote_a_term(world: World) -> None:
    """Each server will vote for at most one candidate in a given term. (§5.2)"""
    member = follower_of(world)
    term = higher(member)
    first, second = (id for id in world.names if id != member.storage.identity.node_id)
    on_disk(member, HardState(term, first))
    check(world, member, Send(first, RequestVoteReply(term=term, granted=True)))
    on_disk(member, HardState(term, second))
    with fires("vote-once"):
        check(world, member, Send(second, RequestVoteReply(term=term, granted=True)))


def on_disk(member: SimMember, hard_state: HardState) -> None:
    """Put *hard_state* on the disk of *member*, behind the back of its core."""
    persist = Persist(seq=99_999, hard_state=hard_state, truncate_from=None, first_index=Index(0), entries=())
    member.storage.persist([persist])


def test_a_candidate_votes_for_itself_on_disk(world: World) -> None:
    """A candidate's own vote counts only once it is durable, and so is its log. (R2)"""
    member = follower_of(world)
    last = Index(core(member).log.last_index + 1)
    vote = RequestVote(term=higher(member), last_log_index=last, last_log_term=Term(1))
    with fires("term-durable"):
        said(world, member, attrs.evolve(vote, last_log_index=Index(1)))
    on_disk(member, HardState(vote.term, member.storage.identity.node_id))
    with fires("vote-durable", "entries that are not on its disk"):
        said(world, member, vote)


def test_an_acknowledgement_is_on_disk(world: World) -> None:
    """A follower acknowledges entries that it has on stable storage. (R3)"""
    member = follower_of(world)
    reply = AppendEntriesReply(
        term=core(member).current_term,
        round=0,
        success=True,
        index=Index(core(member).log.last_index + 1),
        hint_index=Index(0),
        hint_term=Term(0),
    )
    with fires("ack-durable", "not on its disk"):
        said(world, member, reply)
    said(world, member, attrs.evolve(reply, success=False))


def test_an_acknowledgement_is_of_the_leaders_entries(world: World) -> None:
    """If two entries have the same index and term, the logs are the same up to there; other terms confirm nothing."""
    leader, member = leader_of(world), follower_of(world)
    index = Index(member.storage.durable_last_index)
    reply = AppendEntriesReply(
        term=core(leader).current_term,
        round=0,
        success=True,
        index=index,
        hint_index=Index(0),
        hint_term=Term(0),
    )
    to = leader.storage.identity.node_id
    check(world, member, Send(to, reply))

    member.storage._durable.entries[-1] = attrs.evolve(member.storage._durable.entries[-1], term=Term(0))
    core(member).log.truncate(index)
    core(member).log.append([entry(Term(0))])
    with fires("ack-matches", f"acknowledges {index} of term 0"):
        check(world, member, Send(to, reply))
    core(leader).role = Role.FOLLOWER
    check(world, member, Send(to, reply))


def test_a_leader_counts_what_is_on_the_disks_of_its_followers(world: World) -> None:
    """matchIndex: index of highest log entry known to be replicated on server. (Figure 2)"""
    leader = leader_of(world)
    peer, progress = next(iter(core(leader).progress.items()))
    progress.match_index = Index(core(leader).log.last_index + 1)
    with fires("match-durable", f"as held by {world.names[peer]}"):
        check(world, leader)
    on_disk(world.members[world.names[peer]], HardState(higher(leader), None))
    check(world, leader)


def test_a_round_is_echoed_in_its_own_term(world: World) -> None:
    """An answer confirms the leader of its term, so it must not carry the count of another. (thesis §6.4)"""
    leader, member = leader_of(world), follower_of(world)
    beyond = core(leader).round + 1
    reply = AppendEntriesReply(
        term=core(member).current_term,
        round=beyond,
        success=True,
        index=Index(1),
        hint_index=Index(0),
        hint_term=Term(0),
    )
    with fires("round-echo", f"round {beyond} of term"):
        said(world, member, reply)
    said(world, member, attrs.evolve(reply, round=core(leader).round))


def test_a_term_is_on_disk_before_it_is_spoken_in(world: World) -> None:
    """Also a leader's messages carry only a term that its disk knows. (R4)"""
    leader = leader_of(world)
    message = AppendEntries(
        term=higher(leader), prev_log_index=Index(0), prev_log_term=Term(0), leader_commit=Index(0), round=1, entries=()
    )
    with fires("term-durable", "its disk knows"):
        said(world, leader, message)
    said(world, leader, PreVote(term=higher(leader), last_log_index=Index(0), last_log_term=Term(0)))


def test_a_process_remembers_the_terms_it_spoke_in(world: World) -> None:
    """A restart never goes back behind what was said before. (R4)"""
    member = leader_of(world)
    boot = member.storage.recover()
    with fires("term-durable", "woke up in 0"):
        world.checks.started(member, attrs.evolve(boot, hard_state=HardState()))


# ------------------------------------------------------------------ of what is applied


CONTEXT = ApplyContext(index=3, stamp=0)


def test_members_apply_the_same(world: World) -> None:
    """Replicas that apply the same commands get the same results. (Figure 3, State Machine Safety)"""
    world.checks.outcomes.clear()
    checks = world.checks
    checks.applied("n1", CONTEXT, b"command", b"answer")
    checks.applied("n2", CONTEXT, b"command", b"answer")
    check(world, follower_of(world))
    checks.applied("n3", CONTEXT, b"command", b"another answer")
    with fires("state-machine-safety", "applied b'command'"):
        check(world, follower_of(world))


def test_a_command_is_applied_once(world: World) -> None:
    """A write that was submitted once is carried out at most once."""
    world.checks.outcomes.clear()
    world.checks.applied("n1", CONTEXT, b"command", b"answer")
    world.checks.applied("n1", attrs.evolve(CONTEXT, index=4), b"command", b"answer")
    with fires("exactly-once"):
        check(world, follower_of(world))


# ------------------------------------------------------------------ of snapshots


def snapshot_of(world: World, index: int) -> Snapshot:
    """Return what a snapshot of all entries up to *index* says of itself."""
    configuration = core(leader_of(world)).configuration
    return Snapshot(Index(index), world.checks.committed[index - 1], 0, configuration)


def test_a_snapshot_is_of_committed_entries(world: World) -> None:
    """A server may discard all log entries through the last included index: they are committed. (§7)"""
    leader = leader_of(world)
    assert leader.replica is not None
    snapshot = snapshot_of(world, core(leader).applied)
    world.checks.restored("n1", snapshot, leader.replica.state)

    with fires("snapshot-committed", "which nobody has committed"):
        beyond = Index(len(world.checks.committed) + 1)
        world.checks.restored("n1", attrs.evolve(snapshot, index=beyond), leader.replica.state)
    with fires("snapshot-committed"):
        other = attrs.evolve(snapshot, term=Term(snapshot.term + 1))
        world.checks.restored("n1", other, leader.replica.state)


def test_a_snapshot_holds_what_the_commands_make(world: World) -> None:
    """No more, no less, and nothing else than all commands up to its entry."""
    leader = leader_of(world)
    assert leader.replica is not None
    state = leader.replica.state
    last = max(world.checks.outcomes)
    assert last <= core(leader).applied
    world.checks.restored("n1", snapshot_of(world, last), state)

    with fires("snapshot-equals-replay", f"a state of {last - 1} "):
        world.checks.restored("n1", snapshot_of(world, last - 1), state)
    transaction = leader.replica._overlay.begin()
    transaction.put(b"planted", b"by nobody")
    transaction.commit()
    with fires("snapshot-equals-replay"):
        world.checks.restored("n1", snapshot_of(world, last), state)


def test_one_snapshot_a_peer_at_a_time(world: World) -> None:
    """A leader waits for the end of a transfer; what another term asked for is no concern of it."""
    leader = leader_of(world)
    world.checks.sends_again(leader, "n1", Term(8), Term(7))
    with fires("one-transfer", "sent to n1 at once"):
        world.checks.sends_again(leader, "n1", Term(7), Term(7))
