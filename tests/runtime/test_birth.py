"""The birth protocol in a small world of its own: loss, doubling, reordering, crashes, restarts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from huton.errors import CorruptRecord
from huton.raft.types import Configuration, Member, NodeId
from huton.runtime.birth import BirthProtocol
from huton.runtime.birth_contract import (
    Born,
    Effect,
    Event,
    Heard,
    Met,
    Report,
    SaveBirth,
    Saved,
    SavePledge,
    Tell,
    Timeout,
)
from huton.storage.interface import Birth
from huton.wire import (
    BirthAborted,
    BirthDecided,
    BirthElsewhere,
    BirthMessage,
    BirthNotice,
    BirthProposal,
    decode_birth,
    encode_birth,
)

SECOND = 1_000_000_000


def member(name: str, incarnation: int = 1) -> Member:
    return Member(NodeId(f"{name}#{incarnation:032x}"), f"{name}.test:7420")


A, B, C, D = (member(name) for name in "abcd")


@attrs.define
class Disk:
    """What survives a crash, and every pledge that was ever on it."""

    birth: Birth | None = None
    pledge: bytes | None = None


class World:
    """Nodes, a network that only tests' chance can keep from doing harm, and the promise to be checked."""

    def __init__(self, size: int, random: Random, *, expect: int | None = None) -> None:
        self.random = random
        self.now = 0
        self.expect = expect or size
        self.members = [member(name) for name in "abcdefg"[:size]]
        self.disks = {one.id: Disk() for one in self.members}
        self.nodes: dict[NodeId, BirthProtocol] = {}
        self.writes: dict[NodeId, SavePledge | SaveBirth] = {}
        self.network: list[tuple[NodeId, NodeId, BirthMessage]] = []
        self.births: dict[bytes, Configuration] = {}
        for one in self.members:
            self.start(one)

    def start(self, one: Member) -> None:
        disk = self.disks[one.id]
        self.nodes[one.id] = BirthProtocol(
            member=one,
            expect=self.expect,
            birth=disk.birth,
            pledge=disk.pledge,
            draw_cluster_id=lambda: self.random.randbytes(16),
        )

    def crash(self, one: Member) -> None:
        self.nodes.pop(one.id, None)
        write = self.writes.pop(one.id, None)
        # Whether a write that was under way reached the disk, nobody knows.
        if write is not None and self.random.random() < 0.5:
            self.put_on_disk(one.id, write)

    def step(self, node: NodeId, event: Event) -> None:
        protocol = self.nodes.get(node)
        if protocol is None:
            return
        for effect in protocol.step(self.now, event):
            self.carry_out(node, effect)

    def carry_out(self, node: NodeId, effect: Effect) -> None:
        match effect:
            case SavePledge() | SaveBirth():
                assert node not in self.writes, "one write at a time"
                self.writes[node] = effect
            case Tell(to, message):
                assert to != node
                # Through bytes, so that nothing is said that the wire can't carry.
                self.network.append((node, to, decode_birth(encode_birth(message))))
            case Born(birth):
                assert self.disks[node].birth == birth, "born only once it is durable"
            case Report():
                pass

    def put_on_disk(self, node: NodeId, write: SavePledge | SaveBirth) -> None:
        disk = self.disks[node]
        assert disk.birth is None, "a member of a cluster writes nothing more"
        if isinstance(write, SavePledge):
            assert write.pledge is None or disk.pledge is None, "at most one pledge"
            disk.pledge = write.pledge
        else:
            disk.birth, disk.pledge = write.birth, None
            self.births[write.birth.cluster_id] = write.birth.configuration

    def finish_write(self, node: NodeId) -> None:
        write = self.writes.pop(node, None)
        if write is not None:
            self.put_on_disk(node, write)
            self.step(node, Saved())

    def deliver(self, position: int) -> None:
        sender, to, message = self.network.pop(position)
        self.step(to, Heard(sender, message))

    def meet(self, one: Member, other: Member) -> None:
        """A handshake: each learns that the other is there."""
        if one.id in self.nodes and other.id in self.nodes:
            self.step(one.id, Met(other))
            self.step(other.id, Met(one))

    def check(self) -> None:
        """Births that share a member are one; and what is decided is what its members pledged to."""
        belongs: dict[NodeId, bytes] = {}
        for cluster_id, configuration in self.births.items():
            assert len(configuration.members) == self.expect
            for one in configuration.members:
                assert belongs.setdefault(one.id, cluster_id) == cluster_id, "one node, two clusters"
        for node, disk in self.disks.items():
            if disk.birth is not None:
                assert disk.birth.configuration == self.births[disk.birth.cluster_id]
                assert belongs[node] == disk.birth.cluster_id

    def chaos(self, steps: int) -> None:
        """Let anything happen, *steps* times; in some runs the weather is worse than in others."""
        random = self.random
        badness = random.choice((0.2, 1.0, 4.0))
        kinds = ("deliver", "write", "time", "meet", "start", "lose", "double", "crash")
        weights = (60.0, 25.0, 8.0, 8.0, 8.0, 4 * badness, 4 * badness, 1 * badness)
        pauses = (SECOND // 20, SECOND // 2, 3 * SECOND, 11 * SECOND)
        for kind in random.choices(kinds, weights, k=steps):
            one = random.choice(self.members)
            match kind:
                case "deliver" if self.network:
                    self.deliver(random.randrange(len(self.network)))
                case "lose" if self.network:
                    self.network.pop(random.randrange(len(self.network)))
                case "double" if self.network:
                    self.network.append(random.choice(self.network))
                case "write":
                    self.finish_write(one.id)
                case "time":
                    self.pass_time(random.choices(pauses, (90, 8, badness, badness / 2))[0])
                case "meet":
                    self.meet(one, random.choice(self.members))
                case "crash":
                    self.crash(one)
                case "start" if one.id not in self.nodes:
                    self.start(one)
            self.check()

    def pass_time(self, duration: int) -> None:
        self.now += duration
        for node in list(self.nodes):
            self.step(node, Timeout())

    def heal(self, until: Callable[[], bool]) -> int:
        """Run everything well until *until* holds; return how many rounds of 50 ms that took, at most a minute."""
        for one in self.members:
            if one.id not in self.nodes:
                self.start(one)
        for round_ in range(1200):
            if until():
                return round_
            if round_ % 10 == 0:
                # The seeds: everybody knows where the first one listens, and it dials back.
                for one in self.members[1:]:
                    self.meet(one, self.members[0])
            for node in list(self.writes):
                self.finish_write(node)
            # What was told before this round arrives; links exist to whoever a node wants to talk to.
            arriving, self.network = self.network, []
            self.random.shuffle(arriving)
            for sender, to, message in arriving:
                self.step(to, Heard(sender, message))
            self.pass_time(SECOND // 20)
            self.check()
        raise AssertionError("no birth within a minute of good weather")

    def all_born(self) -> bool:
        return all(disk.birth is not None for disk in self.disks.values())


def make_world(size: int, *, seed: int = 1, expect: int | None = None) -> World:
    return World(size, Random(seed), expect=expect)


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 5), seed=st.integers(0, 2**32), steps=st.integers(0, 800))
def test_a_cluster_is_born_exactly_once(size: int, seed: int, steps: int) -> None:
    """DESIGN.md §6: 'A cluster is born exactly once', whatever is lost, doubled, late or crashes; and once
    messages flow it is.
    """
    world = make_world(size, seed=seed)

    world.chaos(steps)
    world.heal(world.all_born)

    assert len({disk.birth for disk in world.disks.values()}) == 1


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 800))
def test_more_nodes_than_members(seed: int, steps: int) -> None:
    """Five nodes, of which each expects to be born with two others: births never overlap, and there is one."""
    world = make_world(5, seed=seed, expect=3)

    world.chaos(steps)
    world.heal(lambda: len(world.births) >= 1)

    assert len(world.births) == 1


def test_a_birth_alone() -> None:
    """DESIGN.md §6: '`--bootstrap` is `expect 1`': own pledge, own decision, no message."""
    world = make_world(1)

    world.pass_time(1)
    world.finish_write(A.id)
    world.finish_write(A.id)

    birth = world.disks[A.id].birth
    assert birth is not None
    assert birth.configuration == Configuration((A,))
    assert world.network == []


def test_nobody_is_told_of_a_proposal_before_it_is_durable() -> None:
    """A proposer that forgot its proposal could not abort it."""
    world = make_world(2)
    world.meet(A, B)
    world.pass_time(1)

    while not world.writes:
        world.deliver(0)

    assert list(world.writes) == [A.id], "the smallest name proposes"
    assert not any(isinstance(message, BirthProposal) for _, _, message in world.network)
    world.finish_write(A.id)
    assert any(isinstance(message, BirthProposal) for _, _, message in world.network)


def test_nobody_says_that_it_pledged_before_the_pledge_is_durable() -> None:
    """DESIGN.md §6: 'every node *durably* pledges'; a crash may still take back what is being written."""
    node = protocol(B)
    proposal = BirthProposal(cluster_id=b"p" * 16, proposer=A.id, members=(A, B, C))

    assert saves(node.step(1, Heard(A.id, proposal))) == [SavePledge(encode_birth(proposal))]
    node.step(2, Met(A))
    before = node.step(3 * SECOND, Timeout())
    after = node.step(4 * SECOND, Saved())

    assert [pledged(effect.message) for effect in before if isinstance(effect, Tell)] == [False]
    assert {pledged(effect.message) for effect in after if isinstance(effect, Tell)} == {True}


def test_a_node_that_is_gone_for_good_is_replaced() -> None:
    """A proposal that gets nowhere is aborted after a while, and whoever is there is born without the missing one."""
    world = make_world(3, expect=2)
    world.crash(C)
    world.meet(A, B)
    world.pass_time(1)
    while not world.writes:
        world.deliver(0)
    world.finish_write(A.id)
    world.crash(B)
    world.members.remove(B)
    del world.disks[B.id]

    world.heal(world.all_born)

    assert [configuration.members for configuration in world.births.values()] == [(A, C)]


def test_nobody_decides_without_all_pledges() -> None:
    """DESIGN.md §6: 'only with the pledges of *all* N does the proposer write the cluster id'."""
    world = make_world(3)
    silent = C.id
    for _ in range(150):
        for one in (B, C):
            world.meet(A, one)
        for node in list(world.writes):
            world.finish_write(node)
        world.network = [entry for entry in world.network if not (entry[0] == silent and pledged(entry[2]))]
        for _ in range(len(world.network)):
            world.deliver(0)
        world.pass_time(SECOND // 20)

    assert world.disks[silent].pledge is not None or world.disks[B.id].pledge is not None, "the attempt was made"
    assert world.births == {}


def pledged(message: BirthMessage) -> bool:
    return isinstance(message, BirthNotice) and message.pledged is not None


def in_proposal(node: Member, *members: Member) -> tuple[BirthProtocol, BirthProposal]:
    """Return *node*, durably pledged to a proposal of the first of *members*, which are all it expects."""
    proposal = BirthProposal(cluster_id=b"p" * 16, proposer=members[0].id, members=members)
    return protocol(node, expect=len(members), pledge=encode_birth(proposal)), proposal


def protocol(
    node: Member, *, expect: int = 3, birth: Birth | None = None, pledge: bytes | None = None
) -> BirthProtocol:
    return BirthProtocol(
        member=node, expect=expect, birth=birth, pledge=pledge, draw_cluster_id=lambda: b"fresh cluster id"
    )


def notice(node: Member, *, expect: int = 3, proposal: BirthProposal | None = None) -> BirthNotice:
    return BirthNotice(
        member=node,
        expect=expect,
        known=(),
        pledged=proposal.cluster_id if proposal else None,
        proposer=proposal.proposer if proposal else None,
    )


def test_a_pledge_is_kept_until_its_proposer_aborts() -> None:
    """DESIGN.md §6: 'released only by its proposer's durable abort'."""
    node, proposal = in_proposal(C, A, B, C)
    other = BirthProposal(cluster_id=b"q" * 16, proposer=B.id, members=(B, C, D))

    assert saves(node.step(1, Heard(B.id, other))) == []
    assert saves(node.step(2, Heard(B.id, BirthAborted(cluster_id=proposal.cluster_id)))) == []
    assert saves(node.step(3, Heard(A.id, BirthAborted(cluster_id=other.cluster_id)))) == []
    assert saves(node.step(100 * SECOND, Timeout())) == []
    assert saves(node.step(100 * SECOND, Heard(A.id, BirthAborted(cluster_id=proposal.cluster_id)))) == [
        SavePledge(None)
    ]


def test_a_proposer_aborts_what_a_former_run_left_undecided() -> None:
    """It may have lost pledges that it had heard of; and its address may be another one."""
    node, proposal = in_proposal(A, A, B, C)

    assert saves(node.step(1, Timeout())) == [SavePledge(None)]
    late = node.step(2, Heard(B.id, notice(B, proposal=proposal)))
    aborted = Tell(B.id, BirthAborted(cluster_id=proposal.cluster_id))
    assert aborted not in late, "not before the abort is durable"
    assert aborted in node.step(3, Saved())


def test_a_proposer_whose_disk_is_lost_is_reported() -> None:
    """It may have decided: only a person can know that it has not."""
    node, _ = in_proposal(C, A, B, C)

    effects = node.step(1, Met(member("a", 2)))

    assert saves(effects) == []
    assert any(isinstance(effect, Report) and effect.urgent and A.id in effect.text for effect in effects)


def test_a_pledged_node_learns_of_the_birth_from_any_member() -> None:
    """The proposer may be gone for long after its decision."""
    node, proposal = in_proposal(C, A, B, C)

    effects = node.step(1, Heard(B.id, BirthDecided(cluster_id=proposal.cluster_id, members=proposal.members)))

    assert saves(effects) == [SaveBirth(Birth(proposal.cluster_id, Configuration((A, B, C))))]


def test_a_decision_that_was_never_pledged_to_is_refused() -> None:
    """A disk that was set back must not be taken for the member that it once was."""
    node = protocol(C)

    effects = node.step(1, Heard(A.id, BirthDecided(cluster_id=b"p" * 16, members=(A, B, C))))

    assert saves(effects) == []
    assert any(isinstance(effect, Report) and effect.urgent and "set back" in effect.text for effect in effects)


def test_cluster_members_never_pledge() -> None:
    """DESIGN.md §6: 'cluster members never pledge'; whoever asks is told where they belong."""
    node = protocol(B, birth=Birth(b"x" * 16, Configuration((B,))))
    proposal = BirthProposal(cluster_id=b"p" * 16, proposer=A.id, members=(A, B, C))

    assert node.step(1, Heard(A.id, proposal)) == []
    assert Tell(A.id, BirthElsewhere(cluster_id=b"x" * 16)) in node.step(2, Heard(A.id, notice(A)))


@pytest.mark.parametrize(
    ("sender", "proposer", "members"),
    [
        (A, A, ()),
        (A, A, (A, B)),
        (A, A, (A, C, D)),
        (B, A, (A, B, C)),
        (C, C, (A, B, C)),
        (A, A, (A, C, B)),
        (A, A, (A, B, B)),
        (A, A, (A, attrs.evolve(B, address="elsewhere.test:1"), C)),
    ],
)
def test_a_proposal_without_sense_gets_no_pledge(sender: Member, proposer: Member, members: tuple[Member, ...]) -> None:
    """Of the right number, with this node at its address, sorted, from the proposer, who is the smallest."""
    proposal = BirthProposal(cluster_id=b"p" * 16, proposer=proposer.id, members=members)

    assert saves(protocol(B).step(1, Heard(sender.id, proposal))) == []


def test_the_larger_proposer_yields() -> None:
    """Two proposals in each other's way: the smaller proposer's stays, so that one of them gets on."""
    node = protocol(B)
    node.step(0, Timeout())
    for one in (C, D):
        node.step(1, Heard(one.id, notice(one)))
    node.step(2, Saved())
    assert node.pledged

    smaller = BirthProposal(cluster_id=b"p" * 16, proposer=A.id, members=(A, C, D))
    assert saves(node.step(3, Heard(C.id, notice(C, proposal=smaller)))) == [SavePledge(None)]


def test_nodes_that_expect_another_number_are_told_apart() -> None:
    """A clear report instead of a wait without end."""
    node = protocol(A, expect=2)

    effects = node.step(1, Heard(B.id, notice(B, expect=3)))

    assert saves(effects) == []
    assert any(isinstance(effect, Report) and "expects 3 members, this node 2" in effect.text for effect in effects)


@pytest.mark.parametrize("when", ["itself", "known", "born"])
def test_a_name_that_is_taken(when: str) -> None:
    """DESIGN.md §6: 'a second node with a taken name is refused with an error that says so'."""
    born = Birth(b"x" * 16, Configuration((A, B)))
    node = protocol(A, birth=born if when == "born" else None)
    name = "a" if when == "itself" else "b"
    if when == "known":
        node.step(1, Met(B))

    refusal = node.refusal(2, member(name, 2).id)

    assert refusal is not None
    assert f"the name '{name}' is taken" in refusal
    assert node.refusal(2, member(name, 1).id) is None


def test_a_name_is_free_again_once_its_node_is_gone() -> None:
    """A data directory that was made anew before any birth is a new node under the old name."""
    node = protocol(A)
    node.step(0, Heard(B.id, notice(B)))
    again = member("b", 2)

    assert node.refusal(5 * SECOND, again.id) is None
    node.step(5 * SECOND, Met(again))

    assert node.peers() == (again,)


def test_a_pledge_that_is_none_is_corrupt() -> None:
    """Never a guess."""
    with pytest.raises(CorruptRecord):
        protocol(A, pledge=b"nonsense")
    with pytest.raises(CorruptRecord):
        protocol(A, pledge=encode_birth(BirthAborted(cluster_id=b"p" * 16)))


def saves(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, SavePledge | SaveBirth)]
