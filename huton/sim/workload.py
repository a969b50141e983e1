"""Clients: each has one operation under way, asks any member, and writes down what it was told.

What it was told is the history that is checked for linearizability. An operation that surely did not happen
(``NoLeader``, ``Overloaded``) leaves no trace in it; one whose end nobody knows stays open for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import attrs

from huton.errors import CompareFailed, OutcomeUnknown
from huton.kv.commands import CompareAndSet, Delete, Deleted, Revised, Set, decode_answer, encode_command
from huton.kv.machine import get_entry
from huton.replica import Answer, ViewReady
from huton.sim.history import Operation

if TYPE_CHECKING:
    from huton.sim.member import SimMember
    from huton.sim.world import World

__all__ = ["BUCKET", "Client"]

BUCKET: Final = b"sim"
RETRY_NS: Final = 50_000_000
"""How long a client waits when the member it knows is down."""

Kind = Literal["set", "get", "delete", "cas"]
MIX: Final[tuple[Kind, ...]] = ("get",) * 8 + ("set",) * 7 + ("cas",) * 4 + ("delete",)


@attrs.frozen
class Open:
    """An operation under way, and the command that stands for it in the log, if it writes."""

    operation: Operation
    command: bytes | None


class Client:
    """One client.

    Attributes:
        history: what it did, in order; for writes with the command, by which the log can be asked.
        open: whether an operation is under way.
    """

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._name = f"c{number}"
        self._count = 0
        # Per key what this client last read there: the value, and the revision that stands for it.
        self._read: dict[bytes, tuple[bytes | None, int]] = {}
        self.history: list[Open] = []
        self.open = False
        self._think()

    def _think(self) -> None:
        world = self._world
        pause = world.draws.between(0, world.options.workload.think_ns, "think", self._name, self._count)
        world.after(pause + 1, self._begin)

    def _begin(self) -> None:
        world, name, count = self._world, self._name, self._count
        if world.now >= world.options.duration_ns:
            return
        member = world.members[world.draws.choice(list(world.members), "member", name, count)]
        self._count += 1
        if member.replica is None or world.now < member.paused_until:
            # A process that is down refuses the connection; one that stands still would be given up on.
            world.after(RETRY_NS, self._begin)
            return
        kind = world.draws.choice(MIX, "kind", name, count)
        key = b"k%d" % world.draws.between(1, world.options.workload.keys, "key", name, count)
        self.open = True
        if kind == "get":
            self._get(member, key)
        else:
            self._write(member, kind, key)

    def _get(self, member: SimMember, key: bytes) -> None:
        call = self._world.now
        member.read(lambda end: self._end_get(member, key, call, end))

    def _end_get(self, member: SimMember, key: bytes, call: int, end: Answer | ViewReady | None) -> None:
        if isinstance(end, ViewReady) and member.replica is not None:
            entry = get_entry(member.replica.state, BUCKET, key)
            value = None if entry is None else entry.value
            self._read[key] = (value, 0 if entry is None else entry.mod_revision)
            operation = Operation(
                client=self._name,
                kind="get",
                key=key,
                value=None,
                expected=None,
                call=call,
                returned=self._world.now,
                output=value,
                index=end.index,
            )
            self.history.append(Open(operation, None))
        elif isinstance(end, Answer):
            self._refuse(call, end)
        self._done()

    def _write(self, member: SimMember, kind: Kind, key: bytes) -> None:
        unique = b"%s-%d" % (self._name.encode(), self._count)
        expected, revision = self._read.get(key, (None, 0))
        if kind == "set":
            command = encode_command(Set(BUCKET, key, unique))
        elif kind == "cas":
            command = encode_command(CompareAndSet(BUCKET, key, unique, revision))
        else:
            # A second key that never exists: no two deletions are the same command.
            command = encode_command(Delete(BUCKET, (key, unique)))
        begun = Operation(
            client=self._name,
            kind=kind,
            key=key,
            value=None if kind == "delete" else unique,
            expected=expected if kind == "cas" else None,
            call=self._world.now,
            returned=None,
            output=None,
            index=None,
        )
        member.submit(command, lambda end: self._end_write(begun, command, end))

    def _end_write(self, begun: Operation, command: bytes, end: Answer | ViewReady | None) -> None:
        result = end.result if isinstance(end, Answer) else None
        if result is None or isinstance(result, OutcomeUnknown):
            self.history.append(Open(begun, command))
            if result is not None:
                self._refuse(begun.call, end)
        elif isinstance(result, bytes | CompareFailed):
            output: bool | None = False
            if isinstance(result, bytes):
                answer = decode_answer(result)
                output = answer.count == 1 if isinstance(answer, Deleted) else None if begun.kind == "set" else True
                assert isinstance(answer, Revised | Deleted)
            ended = attrs.evolve(begun, returned=self._world.now, output=output)
            self.history.append(Open(ended, command))
        else:
            self._refuse(begun.call, end)
        self._done()

    def _refuse(self, call: int, end: Answer | ViewReady | None) -> None:
        """An operation was not served; once the cluster has healed that is a failure of it."""
        assert isinstance(end, Answer)
        self._world.not_served(self._name, call, type(end.result).__name__)

    def _done(self) -> None:
        self.open = False
        self._think()
