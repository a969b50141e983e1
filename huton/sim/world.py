"""The world: virtual time, members, network and clients, and one queue of what happens next.

``simulate(plan)`` runs a plan to its end and returns a report. The same plan gives the same run, to the last
bit of its trace's digest: time is a number, chance is drawn by name, and nothing iterates over a set.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from traceback import format_exception
from typing import Final

import attrs

from huton.errors import SafetyViolation
from huton.raft.types import Configuration, Member, NodeId, Role
from huton.replica import Effect, Event, Receive
from huton.sim import faults, linearizability, witness
from huton.sim.draws import RANGE, Draws
from huton.sim.history import Operation
from huton.sim.invariants import Checks, Violation
from huton.sim.member import SimMember
from huton.sim.network import Network
from huton.sim.options import Options, Plan, member_names
from huton.sim.schedule import EVENTS, NS, Fault, Trigger
from huton.sim.trace import Trace
from huton.sim.workload import Client
from huton.storage.interface import Birth, Identity
from huton.storage.memory import MemoryStorage
from huton.wire import PeerMessage

__all__ = ["Report", "World", "simulate"]

SETTLE_NS: Final = 3 * NS
"""How long after its last client a healed cluster may take to agree everywhere."""

LINK_NS: Final = 50_000_000
"""How long it takes at most to make a link to somebody who is up, and to notice that one broke."""

AGREE_EVERY_NS: Final = 100_000_000
"""How often it is asked whether they agree."""

EVENTS_MAX: Final = 50_000
"""More events than that per second of the run, twenty times the usual, are a loop that goes nowhere."""

MIX: Final = 0x9E3779B97F4A7C15
"""An odd number: multiples of it, modulo a power of two, come in an order that looks like none."""

STEP: Final = Struct(">qIQQQQ")


@attrs.frozen(kw_only=True)
class Report:
    """What came of a run.

    Attributes:
        seed: of the plan.
        failure: "safety", "liveness" or "inconclusive", or None if all is well.
        check: the name of the check that fired, or None.
        evidence: what it saw.
        at: when, in nanoseconds of the run.
        digest: of everything that happened, 32 hexadecimal digits.
        events: how many things happened.
        simulated_ns: how much time passed.
        operations: how many operations ended with an answer.
        unknown: how many ended with nobody knowing.
        happened: how often each event of ``schedule.EVENTS`` happened.
    """

    seed: int
    failure: str | None
    check: str | None
    evidence: str
    at: int
    digest: str
    events: int
    simulated_ns: int
    operations: int
    unknown: int
    happened: dict[str, int]


class World:
    """One run.

    Attributes:
        now: virtual time, in nanoseconds from the beginning.
        members: by name, in order.
        ids, names: from a member's name to its id, and back.
    """

    def __init__(self, plan: Plan, trace: Trace) -> None:
        self.plan: Final = plan
        self.options: Final[Options] = plan.options
        self.draws: Final = Draws(plan.seed)
        self.now = 0
        self.events = 0
        self.restart_after: dict[str, int] = {}
        self.happenings = dict.fromkeys(EVENTS, 0)
        self._trace = trace
        self._queue: list[tuple[int, int, int, Callable[[], object]]] = []
        self._queued = 0
        self._tie = self.draws.bits("tie")
        self._over = False
        self._digest = blake2b(digest_size=16)
        # Faults that wait, by the event that they wait for, and how often that has happened, anywhere ("*") and where.
        self._waiting: dict[str, list[tuple[Trigger, Fault]]] = {}
        for fault in plan.faults:
            if fault.when is not None:
                self._waiting.setdefault(fault.when.event, []).append((fault.when, fault))
        self._counts: dict[tuple[str, str], int] = {}
        self._struck: list[tuple[Fault, SimMember]] = []
        self.checks: Final = Checks(self)
        self.network: Final = Network(self.options.network, self.draws, lambda: self.now, self.after, self._deliver)
        names = member_names(self.options.nodes)
        identities = {name: Identity(name, blake2b(name.encode(), digest_size=16).digest()) for name in names}
        self.ids: Final[dict[str, NodeId]] = {name: identity.node_id for name, identity in identities.items()}
        self.names: Final[dict[NodeId, str]] = {id: name for name, id in self.ids.items()}
        configuration = Configuration(tuple(Member(id, f"{name}:7420") for name, id in self.ids.items()))
        birth = Birth(blake2b(b"cluster", digest_size=16).digest(), configuration)
        self.members: Final[dict[str, SimMember]] = {
            name: SimMember(self, name, MemoryStorage(identities[name], birth), self._clock_offset(name))
            for name in names
        }
        self.clients: Final = [Client(self, number + 1) for number in range(self.options.workload.clients)]
        self._schedule()

    def _clock_offset(self, name: str) -> int:
        return self.draws.between(0, 1000 * NS, "clock", name)

    def _schedule(self) -> None:
        options = self.options
        for member in self.members.values():
            self.after(self.draws.between(0, options.election_timeout_ns, "start", member.name), self._starter(member))
        for fault in self.plan.faults:
            if fault.at is not None and fault.at < options.heal_at:
                self.after(fault.at, self._beginner(fault))
        self.after(options.heal_at, self._heal)
        self.after(options.duration_ns, self._settle)

    # ------------------------------------------------------------------ time

    def after(self, delay_ns: int, action: Callable[[], object]) -> None:
        """Do *action* in *delay_ns*; of two at the same time either may come first."""
        self._queued += 1
        tie = (self._tie + self._queued * MIX) % RANGE
        heapq.heappush(self._queue, (self.now + delay_ns, tie, self._queued, action))

    def run(self) -> None:
        """Run to the end, or go on to it.

        Raises:
            Violation: a check fired.
        """
        events_max = EVENTS_MAX * max(1, self.options.duration_ns // NS)
        while not self._over:
            self.now, _, _, action = heapq.heappop(self._queue)
            self.events += 1
            if self.events > events_max:
                raise Violation("progress", f"{events_max} events, and no end; {self._pending()}")
            action()
            if self._struck:
                self._strike()
        self._check_end()

    def _settle(self) -> None:
        """End the run once every client has its answer and all members agree, or when they have had time enough."""
        late = self.now >= self.options.duration_ns + self.options.request_timeout_ns + SETTLE_NS
        if late or self._not_settled() is None:
            self._over = True
        else:
            self.after(AGREE_EVERY_NS, self._settle)

    def _starter(self, member: SimMember) -> Callable[[], object]:
        return lambda: self.restart(member)

    def _beginner(self, fault: Fault) -> Callable[[], object]:
        return lambda: self._begin(fault, None)

    def _deliver(self, source: str, target: str, message: PeerMessage) -> None:
        self.members[target].receive(source, message)

    # ------------------------------------------------------------------ faults

    def happened(self, event: str, member: SimMember) -> None:
        """Something with a name happened: count it, and see which fault has waited for it."""
        self.happenings[event] += 1
        waiting = self._waiting.get(event)
        if waiting is not None:
            for where in ("*", member.name):
                count = self._counts[event, where] = self._counts.get((event, where), 0) + 1
                for trigger, fault in waiting:
                    if trigger.nth == count and trigger.node == where:
                        self._struck.append((fault, member))
        self._trace.happened(self.now, event, member.name)

    def _strike(self) -> None:
        """Let the faults begin that what just happened has triggered."""
        struck, self._struck = self._struck, []
        for fault, member in struck:
            self._begin(fault, member)

    def _begin(self, fault: Fault, member: SimMember | None) -> None:
        if self.now >= self.options.heal_at:
            return
        resolved = faults.resolve(self, fault, member)
        if resolved is None:
            self._trace.text(self.now, f"fault {fault.id}: nobody leads, nothing is done")
            return
        self._note(f"fault {fault.id}: {fault.do}")
        self._trace.fault(self.now, resolved)
        faults.begin(self, resolved)

    def leader(self) -> SimMember | None:
        """Return who leads the highest term, as far as anybody does."""
        leading = [
            (member.replica.raft.state.current_term, member.name)
            for member in self.members.values()
            if member.replica is not None and member.replica.raft.state.role is Role.LEADER
        ]
        return self.members[max(leading)[1]] if leading else None

    def restart(self, member: SimMember) -> None:
        """Begin a new process of *member*, unless one is up."""
        if member.replica is None:
            if member.run:
                self.happened("restarted", member)
            member.start()
            self.make_links(member)

    def make_links(self, member: SimMember) -> None:
        """Whoever is up dials *member*, and is dialled by it; where a link stands already nothing happens."""
        for other in self.members.values():
            if other is not member and other.replica is not None:
                for one, peer in ((member, other), (other, member)):
                    delay = self.draws.between(0, LINK_NS, "link", one.name, peer.name, self.now)
                    self.after(delay, self._linker(one, one.run, peer, peer.run))

    def _linker(self, member: SimMember, run: int, peer: SimMember, peer_run: int) -> Callable[[], object]:
        def link() -> None:
            if (member.run, peer.run) == (run, peer_run) and peer.replica is not None:
                member.reach(peer.name)

        return link

    def died(self, member: SimMember) -> None:
        """Most peers of a process that died notice soon; the others just hear nothing any more."""
        for other in self.members.values():
            key = (other.name, member.name, member.run)
            if other is not member and self.draws.chance(0.7, "notices", *key):
                delay = self.draws.between(0, LINK_NS, "notices after", *key)
                self.after(delay, self._breaker(other, member))

    def _breaker(self, member: SimMember, peer: SimMember) -> Callable[[], object]:
        def lose() -> None:
            member.lose_link(peer.name)
            if peer.replica is not None:
                self.make_links(peer)

        return lose

    def process_ended(self, member: SimMember) -> None:
        """The process of *member* ended by itself: its disk failed. It comes back later."""
        member.crash()
        self.after(self.restart_after.pop(member.name, NS), lambda: self.restart(member))

    def _heal(self) -> None:
        """End all faults: from now on the cluster has all that it needs."""
        self._note("heal")
        self._trace.text(self.now, "all faults end")
        self.network.mend_all()
        for member in self.members.values():
            member.disk_factors.clear()
            member.make_room()
            member.fail_next_sync = False
            self.restart(member)
            self.make_links(member)

    # ------------------------------------------------------------------ the record

    def stepped(self, member: SimMember, event: Event, effects: list[Effect]) -> None:
        """Take a step of *member* into the digest and the trace, and check it."""
        assert member.replica is not None
        state = member.replica.raft.state
        kind = type(event.message).__name__ if isinstance(event, Receive) else type(event).__name__
        step = STEP.pack(
            self.now, len(effects), state.current_term, state.commit_index, state.applied, state.log.last_index
        )
        self._digest.update(member.name.encode() + kind.encode() + step)
        self._trace.stepped(self.now, member.name, event, effects, state)
        self.checks.stepped(member, event, effects)

    def _note(self, text: str) -> None:
        self._digest.update(b"%d %s" % (self.now, text.encode()))

    def not_served(self, client: str, call: int, error: str) -> None:
        """An operation ended without being served.

        Raises:
            Violation: the cluster had healed long before it began.
        """
        if call >= self.options.heal_at + self.options.grace_ns:
            raise Violation("serves-after-healing", f"{client} got {error} at {self.now / NS:.3f}s; {self._pending()}")

    def _pending(self) -> str:
        """Say what each member is doing, for a failure of progress."""
        told = []
        for member in self.members.values():
            if member.replica is None:
                told.append(f"{member.name} is down")
                continue
            state = member.replica.raft.state
            told.append(
                f"{member.name} {state.role.value} term {state.current_term} commit {state.commit_index}"
                f"/{state.log.last_index} applied {state.applied} durable {state.durability.index}"
            )
        return "; ".join(told)

    # ------------------------------------------------------------------ the end

    def history(self) -> list[Operation]:
        """Return all operations, by call, with the log's own word on what became of writes."""
        operations = []
        for client in self.clients:
            for entry in client.history:
                operation = entry.operation
                if entry.command is not None:
                    operation = attrs.evolve(operation, index=self.checks.index_of(entry.command))
                    if operation.returned is None and operation.index is None:
                        continue  # Nobody was told, and it never happened.
                operations.append(operation)
        return sorted(operations, key=lambda operation: (operation.call, operation.client))

    def _check_end(self) -> None:
        self.checks.compare_logs()
        self.checks.compare_states()
        # What clients saw comes first: a wrong answer explains more than a cluster that hangs.
        history = self.history()
        problem = witness.check(history)
        if problem is not None:
            raise Violation("witness", problem)
        verdict = linearizability.check(history)
        if verdict.kind is linearizability.Kind.ILLEGAL:
            raise Violation("linearizability", verdict.evidence)
        if verdict.kind is linearizability.Kind.UNKNOWN:
            raise Violation("linearizability-unknown", "the search ran out of its budget")
        self._check_progress()

    def _check_progress(self) -> None:
        problem = self._not_settled()
        if problem is not None:
            raise problem

    def _not_settled(self) -> Violation | None:
        """Return what is still to be done after the last client has begun its last operation."""
        waiting = sum(client.open for client in self.clients)
        if waiting:
            return Violation("answers", f"{waiting} operations never ended; {self._pending()}")
        cores = [member.replica.raft.state for member in self.members.values() if member.replica is not None]
        leaders = sum(core.role is Role.LEADER for core in cores)
        agreed = min(core.applied for core in cores) == max(core.log.last_index for core in cores) if cores else False
        if len(cores) < len(self.members) or leaders != 1 or not agreed:
            return Violation("converges-after-healing", self._pending())
        return None

    def digest(self) -> str:
        """Return the digest of everything that happened so far."""
        return self._digest.hexdigest()


LIVENESS: Final = ("serves-after-healing", "answers", "converges-after-healing", "progress")


def simulate(plan: Plan, *, trace: Trace | None = None) -> Report:
    """Run *plan* and return what came of it; whatever goes wrong inside is a failure of the run."""
    trace = trace or Trace(None)
    world = World(plan, trace)
    check = failure = None
    evidence = ""
    try:
        world.run()
    except Violation as violation:
        check, evidence = violation.check, violation.evidence
        failure = (
            "liveness" if check in LIVENESS else "inconclusive" if check == "linearizability-unknown" else "safety"
        )
    except SafetyViolation as violation:
        check, evidence, failure = "core-assertion", str(violation), "safety"
    except Exception as error:
        # Any other error of the code under test is a finding, not the end of a campaign.
        check, evidence, failure = "unhandled-error", f"{type(error).__name__}: {error}", "safety"
        trace.text(world.now, "".join(format_exception(error)))
    operations = [entry.operation for client in world.clients for entry in client.history]
    return Report(
        seed=plan.seed,
        failure=failure,
        check=check,
        evidence=evidence,
        at=world.now,
        digest=world.digest(),
        events=world.events,
        simulated_ns=world.now,
        operations=sum(operation.returned is not None for operation in operations),
        unknown=sum(operation.returned is None for operation in operations),
        happened=world.happenings,
    )
