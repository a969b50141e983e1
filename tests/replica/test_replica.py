"""``Replica``: any member takes any request, and each ends in exactly one answer."""

from __future__ import annotations

import pytest

from huton.errors import CommandFailed, NoLeader, OutcomeUnknown, Overloaded
from huton.kv.statemachine import RESERVED_PREFIX
from huton.raft.effects import Persist
from huton.raft.events import PeerUnreachable, Persisted, PersistFailed, Timeout
from huton.raft.messages import AppendEntriesReply
from huton.raft.types import NodeId, RequestId, Role
from huton.replica import Answer, Checkpointed, PeerReachable, Receive, Submit, ViewReady
from huton.wire import ForwardReads, ForwardWrites
from tests.replica.cluster import Cluster

ENVELOPE_BYTES = 25
"""What a session adds to a command."""


def others(cluster: Cluster, name: NodeId) -> list[NodeId]:
    return [other for other in cluster.names if other != name]


@pytest.mark.parametrize("size", [1, 3, 5])
def test_every_member_takes_writes_and_reads(size: int) -> None:
    """A request may go to any member: those that follow forward it to the leader."""
    cluster = Cluster(size)
    cluster.elect()

    for name in cluster.names:
        cluster.submit(name, 1, b"from " + name.encode())
        cluster.read(name, 2)
    cluster.deliver()

    for name in cluster.names:
        assert cluster.result(name, 1) == b"did from " + name.encode()
        assert isinstance(cluster.answer(name, 2), ViewReady)


def test_a_read_sees_every_write_that_was_answered_before_it() -> None:
    """Thesis §6.4: a linearizable read waits until its read index is applied on the node that serves it."""
    cluster = Cluster(3)
    leader = cluster.elect()
    follower = others(cluster, leader)[0]
    cluster.submit(leader, 1, b"written")
    cluster.deliver(frozenset({leader, others(cluster, leader)[1]}))
    assert cluster.result(leader, 1) == b"did written"

    cluster.read(follower, 2)
    assert cluster.answer(follower, 2) is None
    for _ in range(10):
        cluster.tick()
        cluster.deliver()

    assert isinstance(cluster.answer(follower, 2), ViewReady)
    assert cluster.nodes[follower].state.get(b"written") is not None


def test_requests_wait_for_a_leader() -> None:
    """Before the first election nobody leads; what is asked then is answered after it."""
    cluster = Cluster(3)
    for name in cluster.names:
        cluster.submit(name, 1, b"early " + name.encode())
        cluster.read(name, 2)

    cluster.elect()
    cluster.deliver()

    for name in cluster.names:
        assert cluster.result(name, 1) == b"did early " + name.encode()
        assert isinstance(cluster.answer(name, 2), ViewReady)


def test_without_a_leader_requests_end_at_their_deadline() -> None:
    """Nobody can have written anything: the error says so (NoLeader), not before five seconds."""
    cluster = Cluster(3)
    alone = cluster.names[0]
    cluster.submit(alone, 1, b"lost")
    cluster.read(alone, 2)

    for _ in range(95):
        cluster.tick()
        cluster.deliver(frozenset({alone}))
    assert cluster.answer(alone, 1) is None
    for _ in range(10):
        cluster.tick()
        cluster.deliver(frozenset({alone}))

    assert isinstance(cluster.result(alone, 1), NoLeader)
    assert isinstance(cluster.result(alone, 2), NoLeader)
    assert cluster.machines[alone].applied == []


def test_a_failing_command_changes_nothing_and_the_next_one_works() -> None:
    """DESIGN: a command that fails yields a typed error to its caller and counts as applied on every replica."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.submit(leader, 1, b"fail")
    cluster.submit(leader, 2, b"next")
    cluster.deliver()

    error = cluster.result(leader, 1)
    assert isinstance(error, CommandFailed)
    assert error.code == "machine-error"
    assert cluster.result(leader, 2) == b"did next"
    for name in cluster.names:
        assert cluster.nodes[name].state.get(b"never") is None


def test_a_forwarded_write_fails_for_its_own_caller() -> None:
    """The error of a forwarded command travels back to the member that was asked."""
    cluster = Cluster(3)
    follower = others(cluster, cluster.elect())[0]
    cluster.submit(follower, 1, b"fail")
    cluster.deliver()

    error = cluster.result(follower, 1)
    assert isinstance(error, CommandFailed)
    assert str(error) == "ValueError: as asked"


def test_a_leader_that_is_cut_off_answers_that_it_does_not_know() -> None:
    """What it appended may commit later or not: OutcomeUnknown, once its time is up."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.open_sessions()
    cluster.submit(leader, 1, b"perhaps")
    cluster.elect(keep=frozenset(others(cluster, leader)))
    for _ in range(110):
        cluster.tick()
        cluster.deliver(frozenset(others(cluster, leader)))

    assert isinstance(cluster.result(leader, 1), OutcomeUnknown)


def test_what_a_lost_leader_appended_is_tried_again_and_happens_once() -> None:
    """The next leader has it already: the session knows, and gives the same answer."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.open_sessions()
    follower, third = others(cluster, leader)
    cluster.submit(leader, 1, b"mine")
    cluster.submit(follower, 1, b"forwarded")
    # Both reach the disk of the third, and the leader never learns of it.
    while cluster.nodes[third].status().durable_index < cluster.nodes[leader].status().last_index:
        to, event = cluster.queue.pop(0)
        if not (isinstance(event, Receive) and to == leader and isinstance(event.message, AppendEntriesReply)):
            cluster.step(to, event)
    assert cluster.answer(leader, 1) is cluster.answer(follower, 1) is None
    cluster.elect(keep=frozenset(others(cluster, leader)))
    for _ in range(3):
        cluster.tick()
        cluster.deliver()

    assert cluster.result(leader, 1) == b"did mine"
    assert cluster.result(follower, 1) == b"did forwarded"
    for machine in cluster.machines.values():
        assert sorted(machine.applied) == [b"forwarded", b"mine"]


def test_a_follower_tries_again_when_it_reaches_its_leader_again() -> None:
    """A forwarded write may have been lost on its way. A read is simply asked again."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.open_sessions()
    follower = others(cluster, leader)[0]
    cluster.submit(follower, 1, b"patient")
    cluster.read(follower, 2)
    cluster.queue.clear()

    cluster.step(follower, PeerUnreachable(leader))
    for _ in range(3):
        cluster.tick()
        cluster.deliver()
    assert cluster.answer(follower, 1) is cluster.answer(follower, 2) is None, "it is heard, and can't be reached"
    cluster.step(follower, PeerReachable(leader))
    cluster.deliver()

    assert cluster.result(follower, 1) == b"did patient"
    assert isinstance(cluster.answer(follower, 2), ViewReady)


def test_a_write_that_was_overtaken_is_never_carried_out() -> None:
    """Only its message was lost: were it tried again, its effect would come after that of younger writes."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.open_sessions()
    follower = others(cluster, leader)[0]
    cluster.submit(follower, 1, b"old")
    cluster.queue.clear()
    cluster.submit(follower, 2, b"young")
    cluster.deliver()
    cluster.step(follower, PeerUnreachable(leader))
    cluster.step(follower, PeerReachable(leader))
    cluster.deliver()

    assert cluster.result(follower, 2) == b"did young"
    assert isinstance(cluster.result(follower, 1), Overloaded)
    assert cluster.machines[leader].applied == [b"young"]


def test_requests_wait_while_the_link_to_the_leader_is_broken() -> None:
    """Sent to a dead leader they would end undecided; so they wait for the next one."""
    cluster = Cluster(3)
    leader = cluster.elect()
    follower = others(cluster, leader)[0]
    cluster.queue.clear()
    cluster.step(follower, PeerUnreachable(leader))
    cluster.submit(follower, 1, b"patient")
    cluster.read(follower, 2)
    assert cluster.queue == []

    cluster.elect(keep=frozenset(others(cluster, leader)))
    for _ in range(3):
        cluster.tick()
        cluster.deliver(frozenset(others(cluster, leader)))

    assert cluster.result(follower, 1) == b"did patient"
    assert isinstance(cluster.answer(follower, 2), ViewReady)


def test_requests_wait_until_the_leader_can_be_reached() -> None:
    """A leader is heard on a link of its own: that says nothing of the one to it, and what is sent there is lost."""
    cluster = Cluster(3)
    leader = cluster.elect()
    follower = others(cluster, leader)[0]
    cluster.step(follower, PeerUnreachable(leader))
    cluster.elect()
    cluster.submit(follower, 1, b"patient")
    cluster.read(follower, 2)
    for _ in range(3):
        cluster.tick()
        cluster.deliver()
    assert cluster.answer(follower, 1) is cluster.answer(follower, 2) is None

    cluster.step(follower, PeerReachable(leader))
    cluster.deliver()

    assert cluster.result(follower, 1) == b"did patient"
    assert isinstance(cluster.answer(follower, 2), ViewReady)


@pytest.mark.parametrize("more", [False, True], ids=["alone", "while others are asked"])
def test_a_lost_question_for_a_read_is_asked_again(more: bool) -> None:
    """Reads have no effect, so they are repeated while there is time, however many come after them."""
    cluster = Cluster(3)
    follower = others(cluster, cluster.elect())[0]
    cluster.read(follower, 1)
    cluster.queue.clear()

    for number in range(60):
        if more:
            cluster.read(follower, 2 + number)
        cluster.tick()
        cluster.deliver()

    assert isinstance(cluster.answer(follower, 1), ViewReady)


def test_a_doubled_forwarded_write_is_taken_once() -> None:
    """D5: a network may double messages; a write must not be carried out twice."""
    cluster = Cluster(3)
    leader = cluster.elect()
    follower = others(cluster, leader)[0]
    cluster.submit(follower, 1, b"once")
    doubled = [item for item in cluster.queue if isinstance(item[1], Receive)]
    assert any(isinstance(event.message, ForwardWrites) for _, event in doubled if isinstance(event, Receive))
    cluster.queue.extend(doubled)
    cluster.deliver()
    cluster.queue.extend(doubled)
    cluster.deliver()

    assert cluster.result(follower, 1) == b"did once"
    assert all(machine.applied.count(b"once") == 1 for machine in cluster.machines.values())


def test_a_forwarded_write_that_arrives_after_its_term_is_not_taken() -> None:
    """It names the term it is meant for; its sender has long answered, so taking it would surprise."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.open_sessions()
    follower, third = others(cluster, leader)
    cluster.submit(follower, 1, b"late")
    late = [item for item in cluster.queue if isinstance(item[1], Receive)]
    cluster.queue.clear()
    # The follower is alone until it gives up; meanwhile the leader leads again, in a later term.
    first_term = cluster.nodes[leader].status().term
    while cluster.leader() != leader or cluster.nodes[leader].status().term == first_term:
        while cluster.leader() is not None:
            cluster.tick()
            cluster.deliver(frozenset())
        cluster.elect(keep=frozenset({leader, third}))
    while cluster.answer(follower, 1) is None:
        cluster.tick()
        cluster.deliver(frozenset({leader, third}))
    assert isinstance(cluster.result(follower, 1), OutcomeUnknown)
    assert cluster.leader() == leader
    cluster.queue.extend(late)
    cluster.deliver()

    assert all(b"late" not in machine.applied for machine in cluster.machines.values())


def test_a_refused_write_waits_for_the_next_leader() -> None:
    """A leader that has stepped down says that it never took the write: nothing is lost, and nobody is told."""
    cluster = Cluster(3)
    leader = cluster.elect()
    follower, third = others(cluster, leader)
    cluster.submit(follower, 1, b"patient")
    forwarded = [item for item in cluster.queue if isinstance(item[1], Receive)]
    cluster.queue.clear()
    # The leader is cut off until it steps down; the forwarded write reaches it only then.
    while cluster.nodes[leader].status().role is Role.LEADER:
        cluster.now += 50_000_000
        cluster.step(leader, Timeout())
        cluster.queue.clear()
    cluster.queue.extend(forwarded)
    cluster.deliver()
    assert cluster.answer(follower, 1) is None
    cluster.elect()
    cluster.deliver()

    assert cluster.result(follower, 1) == b"did patient"
    assert cluster.machines[third].applied.count(b"patient") == 1


def test_writes_of_one_member_take_effect_in_the_order_in_which_it_got_them() -> None:
    """A pipeline of redis commands relies on it."""
    cluster = Cluster(3)
    leader = cluster.elect()
    for name in (leader, others(cluster, leader)[0]):
        for id in range(1, 21):
            cluster.submit(name, id, name.encode() + b" %02d" % id)
    cluster.deliver()

    for name in (leader, others(cluster, leader)[0]):
        mine = [command for command in cluster.machines[leader].applied if command.startswith(name.encode())]
        assert mine == sorted(mine)
        assert len(mine) == 20


def test_forwarded_writes_travel_in_messages_of_bounded_size() -> None:
    """A frame between peers has a bound: many large writes at once take several messages, in order."""
    cluster = Cluster(3, requests_max=1000)
    follower = others(cluster, cluster.elect())[0]
    cluster.open_sessions()
    requests = tuple((RequestId(id), b"%02d" % id * 200_000) for id in range(1, 12))
    cluster.step(follower, Submit(requests))
    sizes = [
        sum(len(command) - ENVELOPE_BYTES for _, command in send.message.requests)
        for name, send in cluster.sent
        if name == follower and isinstance(send.message, ForwardWrites)
    ]
    assert sizes == [800_000, 800_000, 800_000, 800_000, 800_000, 400_000]
    cluster.deliver()

    assert [cluster.result(follower, id) for id, _ in requests] == [b"did " + command for _, command in requests]


def test_too_many_open_requests_are_refused() -> None:
    """Every queue has a bound that is named: requests_max."""
    cluster = Cluster(3, requests_max=10)
    name = cluster.names[0]
    for id in range(1, 12):
        cluster.submit(name, id, b"x")
        cluster.read(name, 100 + id)

    for first in (0, 100):
        assert cluster.answer(name, first + 10) is None
        assert isinstance(cluster.result(name, first + 11), Overloaded)


def test_a_checkpoint_is_asked_for_once_the_overlay_is_large() -> None:
    """DESIGN §5: applied changes are written behind, sorted, one checkpoint at a time."""
    cluster = Cluster(1, overlay_bytes_max=4000)
    name = cluster.elect()
    for id in range(1, 40):
        cluster.submit(name, id, b"%03d" % (100 - id) * 10)
    cluster.deliver()

    (checkpoint,) = cluster.checkpoints[name]
    session, *keys = [key for key, _ in checkpoint.changes]
    assert session.startswith(RESERVED_PREFIX)
    assert keys == sorted(keys)
    assert checkpoint.snapshot.index == cluster.nodes[name].status().applied - (40 - 1 - len(keys))

    cluster.step(name, Checkpointed(checkpoint.snapshot))
    for id in range(40, 80):
        cluster.submit(name, id, b"%03d" % id * 10)
    cluster.deliver()
    assert len(cluster.checkpoints[name]) == 2


def test_writes_are_refused_while_the_disk_is_behind_with_checkpoints() -> None:
    """The overlay is bounded: at four times the size of a checkpoint writes get Overloaded, everywhere."""
    cluster = Cluster(3, overlay_bytes_max=500, requests_max=1000)
    leader = cluster.elect()
    follower = others(cluster, leader)[0]
    id = 0
    while not any(
        isinstance(answer, Answer) and isinstance(answer.result, Overloaded)
        for answers in cluster.answers.values()
        for answer in answers
    ):
        id += 1
        assert id < 500
        cluster.submit(leader, id, b"%05d" % id * 10)
        cluster.deliver()
    cluster.submit(follower, 1, b"forwarded")
    cluster.deliver()

    assert isinstance(cluster.result(follower, 1), Overloaded)
    assert b"forwarded" not in cluster.machines[leader].applied


def test_applying_pauses_while_the_disk_is_behind_with_checkpoints() -> None:
    """A leader with a quick disk goes on; a follower with a slow one must not gather all of it in memory."""
    cluster = Cluster(3, overlay_bytes_max=2000, requests_max=1000)
    leader = cluster.elect()
    slow, quick = others(cluster, leader)
    for id in range(1, 301):
        cluster.submit(leader, id, b"%05d" % id * 10)
        cluster.deliver()
        for name in (leader, quick):
            if len(cluster.checkpoints[name]) > cluster.done.get(name, 0):
                cluster.checkpointed(name)
    assert all(isinstance(cluster.result(leader, id), bytes) for id in range(1, 301))
    status = cluster.nodes[slow].status()
    assert len(cluster.checkpoints[slow]) == 1
    assert status.applied < 100 < status.durable_index == cluster.nodes[leader].status().last_index
    assert len(cluster.machines[slow].applied) < 100

    while cluster.done.get(slow, 0) < len(cluster.checkpoints[slow]):
        cluster.checkpointed(slow)
        cluster.tick()
        cluster.deliver()

    assert cluster.machines[slow].applied == cluster.machines[leader].applied


def test_a_checkpoint_comes_however_little_changes() -> None:
    """One key that is written again and again: nothing grows but the log that a restart has to carry out."""
    cluster = Cluster(1, overlay_bytes_max=1000)
    name = cluster.elect()
    for id in range(1, 101):
        cluster.submit(name, id, b"fail" if id % 2 else b"same")
        cluster.deliver()
        if len(cluster.checkpoints[name]) > cluster.done.get(name, 0):
            cluster.checkpointed(name)

    metas = [checkpoint.snapshot.index for checkpoint in cluster.checkpoints[name]]
    assert 1 <= len(metas) <= 3
    assert metas[0] < 80


def test_a_failed_sync_answers_everything_and_ends_the_run() -> None:
    """D6: any sync error is PersistFailed and ends this run of the process."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.open_sessions()
    cluster.submit(leader, 1, b"x")
    cluster.read(leader, 2)

    cluster.step(leader, PersistFailed(1, "EIO"))

    assert isinstance(cluster.result(leader, 1), OutcomeUnknown)
    assert isinstance(cluster.result(leader, 2), NoLeader)
    assert cluster.nodes[leader].deadline() is None
    with pytest.raises(RuntimeError):
        cluster.submit(leader, 3, b"y")


def test_a_write_is_durable_on_a_majority_before_its_answer() -> None:
    """Defaults are safe: the answer comes after the second Persisted of three, never before."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.deliver()
    cluster.submit(leader, 1, b"safe")
    held = [item for item in cluster.queue if isinstance(item[1], Persisted)]
    cluster.queue = [item for item in cluster.queue if item not in held]
    while cluster.queue:
        to, event = cluster.queue.pop(0)
        if isinstance(event, Persisted):
            held.append((to, event))
        else:
            cluster.step(to, event)
    assert cluster.answer(leader, 1) is None
    assert len(held) == 3

    cluster.step(*held[0])
    cluster.deliver()
    assert cluster.answer(leader, 1) is None
    cluster.step(*held[1])
    cluster.deliver()
    assert cluster.result(leader, 1) == b"did safe"


def test_reads_are_batched_into_one_round() -> None:
    """Thesis §6.4: all reads that wait share one round of heartbeats."""
    cluster = Cluster(3)
    leader = cluster.elect()
    cluster.deliver()
    cluster.sent.clear()
    follower = others(cluster, leader)[0]
    for id in range(1, 11):
        cluster.read(leader, id)
    cluster.read(follower, 1)
    cluster.deliver()

    questions = [send for name, send in cluster.sent if name == leader]
    assert len(questions) <= 2 * 2 + 2, "at most two rounds to two followers, and one answer each"
    assert sum(isinstance(send.message, ForwardReads) for _, send in cluster.sent) == 1


def test_effects_of_the_disk_keep_their_order() -> None:
    """D2: Persists come with consecutive sequence numbers, in list order."""
    cluster = Cluster(1)
    name = cluster.names[0]
    seqs = []
    node = cluster.nodes[name]
    for id in range(1, 6):
        cluster.tick(1100)
        for effect in node.step(cluster.now, Submit(((RequestId(id), b"x"),))):
            if isinstance(effect, Persist):
                seqs.append(effect.seq)
                cluster.queue.append((name, Persisted(effect.seq)))
        cluster.deliver()
    assert seqs == sorted(seqs)
