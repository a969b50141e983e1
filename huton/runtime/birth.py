"""How a cluster is born exactly once: a state machine without I/O.

Every node tells all others that it hears of who it is (``BirthNotice``). The one with the smallest name among
``expect`` of them *proposes* a birth; every node durably *pledges* to at most one; only with the pledges of all of
them does the proposer *decide*, which is one durable write of the cluster's id and first configuration. The others
write the same before they take any part in the cluster.

Why there is at most one birth among nodes that share a member:

- A decision needs the durable pledge of every member, the proposer's own included.
- A pledge is released only by its proposer's abort, and a proposer that has aborted a birth durably gave up its
  own pledge to it: it can't decide that birth any more, and its id is never drawn again.
- A proposer that restarts aborts what it had not decided. A member that asks after a birth is told the truth by
  whoever belongs to it, or by its proposer.

Of two proposals that stand in each other's way the one with the larger proposer yields; one that gets nowhere is
aborted after a while, so that nodes which have gone for good are replaced by others. What no protocol can heal is a
*proposer* whose disk is lost between proposal and decision: its members wait for it, because it may have decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from huton.errors import CorruptRecord, FrameError
from huton.raft.types import Configuration, Member, NodeId
from huton.runtime.acquaintances import Acquaintances
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
    member_name,
)
from huton.wire.birth import MEMBERS_MAX

__all__ = ["BirthProtocol"]

NOTICE_INTERVAL_NS: Final = 250_000_000
"""How often a node without a cluster tells the others where it stands."""

PROPOSAL_NS: Final = 10_000_000_000
"""A proposal that has not all its pledges by then is aborted."""

REPORTS_MAX: Final = 1000
"""Different reports in one run; further ones are dropped, so that strangers can't fill log and memory."""


class BirthProtocol:
    """One node's part in the birth of its cluster, and afterwards its memory of it.

    Args:
        member: this node.
        expect: how many members the cluster is to have, at least 1; unused once born.
        birth: what storage holds.
        pledge: what storage holds.
        draw_cluster_id: returns 16 random bytes; the only source of chance.

    Raises:
        CorruptRecord: *pledge* is no pledge.
    """

    def __init__(
        self,
        *,
        member: Member,
        expect: int,
        birth: Birth | None,
        pledge: bytes | None,
        draw_cluster_id: Callable[[], bytes],
    ) -> None:
        self._me = member
        self._expect = expect
        self._draw_cluster_id = draw_cluster_id
        self._birth = birth
        # Invariant: what is durable. It changes on Saved only, so that nothing is told before it is true.
        self._pledge = None if pledge is None else _decode_pledge(pledge)
        # Invariant: at most one write is under way, and while it is nothing else is decided.
        self._write: SavePledge | SaveBirth | None = None
        self._peers = Acquaintances()
        # Who is known to have pledged to this node's own proposal. Invariant: empty without one.
        self._pledged: dict[NodeId, None] = {}
        self._proposed_at = 0
        self._next_notice = 0
        self._reported: dict[str, None] = {}
        self._effects: list[Effect] = []

    @property
    def birth(self) -> Birth | None:
        """The cluster this node durably belongs to, or None."""
        return self._birth

    @property
    def pledged(self) -> bool:
        """Whether this node is durably pledged to a birth that it knows no end of."""
        return self._pledge is not None

    def peers(self) -> tuple[Member, ...]:
        """Return whom this node has to be able to talk to about a birth, sorted by id."""
        members = {member.id: member for member in self._founders() if member.id != self._me.id}
        members.update(self._peers.members())
        return tuple(members[node] for node in sorted(members))

    def deadline(self) -> int | None:
        """Return when ``Timeout`` is due, in nanoseconds, or None for never."""
        return None if self._birth is not None and not self._peers else self._next_notice

    def refusal(self, now: int, node: NodeId) -> str | None:
        """Return why *node* can't be talked to because another one bears its name; None if it can."""
        name = member_name(node)
        if self._birth is not None:
            for member in self._birth.configuration.members:
                if member.id != node and member_name(member.id) == name:
                    return _not_that_member(node, member, self._birth.cluster_id)
        if node != self._me.id and name == member_name(self._me.id):
            return f"the name {name!r} is taken: it is the name of the node at {self._me.address}"
        namesake = self._peers.namesake(now, node)
        if namesake is None:
            return None
        return f"the name {name!r} is taken: it is the name of the node at {namesake.address}"

    def step(self, now: int, event: Event) -> list[Effect]:
        """Take in *event* at *now* (monotonic nanoseconds) and return what the driver has to do, in this order."""
        if isinstance(event, Met):
            self._meet(now, event.member)
            if self._birth is None and event.member.id in self._peers:
                self._tell(event.member.id, self._notice(now))
        elif isinstance(event, Heard):
            self._hear(now, event.sender, event.message)
        elif isinstance(event, Saved):
            self._saved(now)
        elif now >= self._next_notice:
            self._tick(now)
        self._advance(now)
        effects, self._effects = self._effects, []
        return effects

    # ------------------------------------------------------------------ the decisions

    def _advance(self, now: int) -> None:
        """Propose, decide or abort, if it is time and no write is under way."""
        if self._birth is not None or self._write is not None:
            return
        proposal = self._proposal()
        if proposal is not None:
            if all(member.id in self._pledged for member in proposal.members):
                configuration = Configuration(proposal.members)
                self._start_write(SaveBirth(Birth(proposal.cluster_id, configuration)))
            elif not self._pledged or now - self._proposed_at >= PROPOSAL_NS:
                # Without even our own pledge counted it is what a former run left behind.
                self._start_write(SavePledge(None))
        elif self._pledge is None:
            founders = self._candidates(now)
            if founders and founders[0].id == self._me.id:
                cluster_id = self._draw_cluster_id()
                self._save_pledge(
                    BirthProposal(cluster_id=cluster_id, proposer=self._me.id, members=founders),
                )

    def _candidates(self, now: int) -> tuple[Member, ...]:
        """Return the ``expect`` nodes of the smallest names that could be born together now, or none."""
        founders = sorted([self._me, *self._peers.free(now)[: self._expect - 1]], key=lambda member: member.id)
        return tuple(founders) if len(founders) == self._expect else ()

    def _consider(self, sender: NodeId, proposal: BirthProposal) -> None:
        """Pledge to *proposal* if this node is free to."""
        ids = [member.id for member in proposal.members]
        sound = self._me in proposal.members and ids == sorted(set(ids)) and sender == proposal.proposer == ids[0]
        if sound and len(ids) == self._expect and self._pledge is None and self._write is None:
            self._save_pledge(proposal)

    def _yield_to(self, notice: BirthNotice) -> None:
        """Abort our own proposal if the sender stands by that of a smaller proposer: one of the two has to go."""
        proposal = self._proposal()
        if proposal is None or notice.member.id not in (member.id for member in proposal.members):
            return
        if notice.proposer is not None and notice.proposer < self._me.id:
            self._abort()

    def _abort(self) -> None:
        if self._proposal() is not None and self._write is None:
            self._start_write(SavePledge(None))

    def _saved(self, now: int) -> None:
        write, self._write = self._write, None
        if isinstance(write, SaveBirth):
            self._birth, self._pledge = write.birth, None
            self._pledged.clear()
            self._effects.append(Born(write.birth))
            self._tell_founders(_decided(write.birth))
        elif isinstance(write, SavePledge):
            aborted = self._proposal()
            self._pledge = None if write.pledge is None else _decode_pledge(write.pledge)
            self._pledged.clear()
            if aborted is not None:
                for member in aborted.members:
                    if member.id != self._me.id:
                        self._tell(member.id, BirthAborted(cluster_id=aborted.cluster_id))
            proposal = self._proposal()
            if proposal is not None:
                self._pledged[self._me.id] = None
                self._proposed_at = now
                self._tell_founders(proposal)
            self._announce(now)

    # ------------------------------------------------------------------ what others say

    def _meet(self, now: int, member: Member) -> None:
        """Note that *member* is there."""
        if member.id == self._me.id or self.refusal(now, member.id) is not None:
            return
        if self._birth is not None and member in self._birth.configuration.members:
            return
        proposal = self._proposal()
        if proposal is not None and any(
            founder.id != member.id and member_name(founder.id) == member_name(member.id)
            for founder in proposal.members
        ):
            self._abort()
        pledge = self._pledge
        if (
            pledge is not None
            and pledge.proposer != member.id
            and member_name(pledge.proposer) == member_name(member.id)
        ):
            self._report(
                f"this node is pledged to a birth that {pledge.proposer} alone can decide or abort, and {member.id} "
                "comes in its place: if the data directory of the former is lost for good, remove that of this node, "
                "which holds nothing yet",
                urgent=True,
            )
        self._remember(now, member)

    def _hear(self, now: int, sender: NodeId, message: BirthMessage) -> None:
        if isinstance(message, BirthNotice):
            if message.member.id == sender != self._me.id and self.refusal(now, sender) is None:
                self._meet(now, message.member)
                self._hear_notice(now, message)
        elif self._birth is not None:
            return
        elif isinstance(message, BirthProposal):
            self._consider(sender, message)
        elif isinstance(message, BirthAborted):
            pledge = self._pledge
            mine = pledge is not None and (pledge.proposer, pledge.cluster_id) == (sender, message.cluster_id)
            if mine and self._write is None:
                self._start_write(SavePledge(None))
        elif isinstance(message, BirthDecided):
            self._hear_decision(sender, message)
        else:
            self._hear_elsewhere(sender, message)

    def _hear_notice(self, now: int, notice: BirthNotice) -> None:
        sender = notice.member.id
        if notice.proposer == self._me.id and notice.pledged is not None:
            self._answer_pledge(sender, notice.pledged)
        birth = self._birth
        if birth is not None:
            if sender in birth.configuration.voters:
                self._tell(sender, _decided(birth))
            else:
                self._tell(sender, BirthElsewhere(cluster_id=birth.cluster_id))
            return
        if notice.expect != self._expect:
            self._report(
                f"{sender} at {notice.member.address} expects {notice.expect} members, this node {self._expect}: "
                "no cluster is born until all expect the same",
                urgent=True,
            )
        free = notice.expect == self._expect and notice.proposer in (None, self._me.id)
        self._peers.hear(now, sender, free=free)
        for member in notice.known:
            unknown = member.id != self._me.id and member.id not in self._peers
            if unknown and self.refusal(now, member.id) is None:
                self._remember(now, member)
        self._yield_to(notice)

    def _answer_pledge(self, sender: NodeId, cluster_id: bytes) -> None:
        """Take note of a pledge to a birth of ours, or say that there is no such birth any more."""
        if self._birth is not None and self._birth.cluster_id == cluster_id:
            return
        proposal = self._proposal()
        if proposal is not None and proposal.cluster_id == cluster_id:
            if self._pledged:
                self._pledged[sender] = None
        else:
            # Not under way and not decided, although we proposed it: it was durably aborted.
            self._tell(sender, BirthAborted(cluster_id=cluster_id))

    def _hear_decision(self, sender: NodeId, message: BirthDecided) -> None:
        ids = [member.id for member in message.members]
        if self._me.id not in ids or sender not in ids:
            return
        pledge = self._pledge
        if pledge is None or (pledge.cluster_id, pledge.members) != (message.cluster_id, message.members):
            self._report(
                f"{sender} says that this node was born with it into cluster {message.cluster_id.hex()}, but the "
                "data directory holds no pledge to that: it was set back, and must not be used",
                urgent=True,
            )
        elif self._write is None:
            self._start_write(SaveBirth(Birth(message.cluster_id, Configuration(message.members))))

    def _hear_elsewhere(self, sender: NodeId, message: BirthElsewhere) -> None:
        self._report(
            f"{sender} belongs to cluster {message.cluster_id.hex()}, which was born without this node",
            urgent=True,
        )
        self._peers.exclude(sender)
        proposal = self._proposal()
        if proposal is not None and sender in (member.id for member in proposal.members):
            self._abort()

    # ------------------------------------------------------------------ the details

    def _tick(self, now: int) -> None:
        self._peers.forget(now)
        self._next_notice = now + NOTICE_INTERVAL_NS
        if self._birth is not None:
            return
        self._announce(now)
        proposal = self._proposal()
        if proposal is not None and self._pledged and self._write is None:
            for member in proposal.members:
                if member.id not in self._pledged:
                    self._tell(member.id, proposal)

    def _announce(self, now: int) -> None:
        """Tell everybody where we stand."""
        notice = self._notice(now)
        for member in self.peers():
            self._tell(member.id, notice)

    def _notice(self, now: int) -> BirthNotice:
        pledge = self._pledge
        return BirthNotice(
            member=self._me,
            expect=self._expect,
            known=self._peers.heard(now),
            pledged=None if pledge is None else pledge.cluster_id,
            proposer=None if pledge is None else pledge.proposer,
        )

    def _remember(self, now: int, member: Member) -> None:
        """Add *member* to those we know, unless they are too many."""
        if self._peers.meet(now, member):
            self._report(f"found {member.id} at {member.address}", urgent=False)
        else:
            self._report(f"more than {MEMBERS_MAX} nodes want to be born together: the others are ignored", urgent=True)

    def _proposal(self) -> BirthProposal | None:
        """Return the birth that this node itself durably proposes, or None."""
        pledge = self._pledge
        return pledge if pledge is not None and pledge.proposer == self._me.id else None

    def _founders(self) -> tuple[Member, ...]:
        """Return the members of the birth that this node is pledged to or was born with."""
        if self._birth is not None:
            return self._birth.configuration.members
        return () if self._pledge is None else self._pledge.members

    def _save_pledge(self, proposal: BirthProposal) -> None:
        self._start_write(SavePledge(encode_birth(proposal)))

    def _start_write(self, write: SavePledge | SaveBirth) -> None:
        self._write = write
        self._effects.append(write)

    def _tell(self, to: NodeId, message: BirthMessage) -> None:
        self._effects.append(Tell(to, message))

    def _tell_founders(self, message: BirthMessage) -> None:
        for member in self._founders():
            if member.id != self._me.id:
                self._tell(member.id, message)

    def _report(self, text: str, *, urgent: bool) -> None:
        """Report *text* once in a run."""
        if text not in self._reported and len(self._reported) < REPORTS_MAX:
            self._reported[text] = None
            self._effects.append(Report(text, urgent))


def _not_that_member(node: NodeId, member: Member, cluster_id: bytes) -> str:
    """Return why *node* is refused, and what to do: it bears the name of *member*, but is another incarnation."""
    return (
        f"the name {member_name(node)!r} is taken: cluster {cluster_id.hex()} has a member of this name with another "
        f"incarnation ({member.id}, last known at {member.address}), and this data directory is that of {node}. If the "
        "member's own data directory is still there, start the member with that one. If it is lost, so is the member: "
        "this version can't replace members. A node that is not meant to be this member needs another name"
    )


def _decided(birth: Birth) -> BirthDecided:
    return BirthDecided(cluster_id=birth.cluster_id, members=birth.configuration.members)


def _decode_pledge(pledge: bytes) -> BirthProposal:
    try:
        message = decode_birth(pledge)
    except FrameError as error:
        raise CorruptRecord(f"the pledge in this data directory: {error}") from None
    if not isinstance(message, BirthProposal):
        raise CorruptRecord("the pledge in this data directory is another kind of message")
    return message
