"""The door for redis clients.

A connection is one task: it reads what has arrived, which may be many commands (a *pipeline*), carries
them out in order, writes all replies, and only then reads on, which holds back a client that doesn't take
its replies. Neighbouring reads of a pipeline share one linearizable read, neighbouring writes one atomic
write; a read comes after every earlier write of its connection has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

import trio

from huton.config import Address
from huton.env import Env
from huton.errors import InvalidRequest, RequestError
from huton.frontends.listening import RECEIVE_BYTES, Tally, listen, say_goodbye, send
from huton.frontends.resp_admin import CONNECTIONS_MAX
from huton.frontends.resp_commands import find
from huton.frontends.resp_protocol import OK, Command, CommandParser, Failure, Reply, encode
from huton.frontends.resp_session import Door, Lookup, Session, Store, failure_of

if TYPE_CHECKING:
    from huton.runtime.node import Node

__all__ = ["serve_resp"]

GROUP_KEYS_MAX: Final = 256
"""Keys that neighbouring commands of a pipeline read, or write, at once."""

GROUP_BYTES_MAX: Final = 262_144
"""Bytes that neighbouring commands of a pipeline write at once; a longer command goes alone."""

REPLY_BYTES: Final = 65_536
"""Replies are sent when they amount to this, or when the pipeline is done."""

PARTIAL_SECONDS: Final = 30.0
"""A client that has begun a command has to send some of its rest within this time.

Between commands a connection may be idle for ever, as those of a client's pool are.
"""


async def serve_resp(
    node: Node, env: Env, address: Address, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve redis clients of *node* at *address*, until cancelled.

    Args:
        task_status: is told the address with the port it really got.

    Raises:
        OSError: the address can't be bound.
    """
    tally = Tally()
    door = Door(node, env.clock, env.random, tally, version=_version())

    async def handle(stream: trio.abc.Stream) -> None:
        await _Connection(Session(door, tally.accepted), stream).run()

    await listen(
        env,
        address,
        handle,
        tally=tally,
        connections_max=CONNECTIONS_MAX,
        refusal=b"-ERR max number of clients reached\r\n",
        task_status=task_status,
    )


def _version() -> str:
    try:
        return version("huton")
    except PackageNotFoundError:  # Run from a checkout that isn't installed.
        return "0.0.0"


class _Connection:
    def __init__(self, session: Session, stream: trio.abc.Stream) -> None:
        self._session = session
        self._stream = stream
        self._out = bytearray()

    async def run(self) -> None:
        parser = CommandParser()
        session = self._session
        while not session.closing:
            data = await self._receive(partial=parser.partial)
            if not data:
                return
            await self._carry_out(parser.feed(data))
            if parser.failure is not None and not session.closing:
                self._reply(Failure(f"ERR Protocol error: {parser.failure}"))
                session.closing = True
            await self._flush()
        await say_goodbye(self._stream)

    async def _receive(self, *, partial: bool) -> bytes | bytearray:
        """Return what has arrived; nothing if the client is gone, or sleeps in the middle of a command."""
        if not partial:
            return await self._stream.receive_some(RECEIVE_BYTES)
        with trio.move_on_after(PARTIAL_SECONDS):
            return await self._stream.receive_some(RECEIVE_BYTES)
        return b""

    async def _flush(self) -> None:
        if self._out:
            data, self._out = self._out, bytearray()
            await send(self._stream, data)

    def _reply(self, reply: Reply) -> None:
        self._out += encode(reply, self._session.protocol)

    async def _carry_out(self, commands: Sequence[Command]) -> None:
        self._session.door.commands += len(commands)
        index = 0
        while index < len(commands) and not self._session.closing:
            taken = 1
            try:
                act = find(commands[index]).act
                if isinstance(act, Lookup):
                    taken = await self._look_up(commands, index)
                elif isinstance(act, Store):
                    taken = await self._store(commands, index, act)
                else:
                    self._reply(await act(self._session, commands[index]))
            except RequestError as error:
                self._reply(failure_of(error))
            index += taken
            if len(self._out) >= REPLY_BYTES:
                await self._flush()

    # ------------------------------------------------- neighbours that go together

    async def _look_up(self, commands: Sequence[Command], index: int) -> int:
        """Answer the commands from *index* on that only look keys up; return how many those were."""
        group: list[tuple[Lookup, Sequence[bytes]]] = []
        keys: list[bytes] = []
        for command in commands[index:]:
            act = _act(command)
            if not isinstance(act, Lookup):
                break
            wanted = act.keys(command)
            if group and len(keys) + len(wanted) > GROUP_KEYS_MAX:
                break
            group.append((act, wanted))
            keys += wanted
        try:
            entries = await self._session.bucket.get_many(keys)
        except RequestError as error:
            if isinstance(error, InvalidRequest) and len(group) > 1:
                # One of the keys is wrong: only its own command shall fail.
                return await self._look_up(commands[index : index + 1], 0)
            for _ in group:
                self._reply(failure_of(error))
            return len(group)
        position = 0
        for act, wanted in group:
            self._reply(act.answer(entries[position : position + len(wanted)]))
            position += len(wanted)
        return len(group)

    async def _store(self, commands: Sequence[Command], index: int, first: Store) -> int:
        """Carry out the commands from *index* on that only set keys; return how many those were.

        In one write, in which a key that is set twice has the later value: nobody could tell.
        """
        items = first.items(commands[index])
        if items is None:
            assert first.otherwise is not None
            self._reply(await first.otherwise(self._session, commands[index]))
            return 1
        changes = dict(items)
        size = _size(items)
        taken = 1
        for command in commands[index + 1 :]:
            more = _items(command)
            if more is None or len(changes) + len(more) > GROUP_KEYS_MAX or size + _size(more) > GROUP_BYTES_MAX:
                break
            changes.update(more)
            size += _size(more)
            taken += 1
        try:
            if len(changes) == 1:
                ((key, value),) = changes.items()
                await self._session.bucket.set(key, value)
            else:
                await self._session.bucket.set_many(changes)
        except RequestError as error:
            if isinstance(error, InvalidRequest) and taken > 1:
                # Nothing was proposed; one of the keys or values is wrong, and only its own command shall fail.
                return await self._store(commands[index : index + 1], 0, first)
            for _ in range(taken):
                self._reply(failure_of(error))
            return taken
        for _ in range(taken):
            self._reply(OK)
        return taken


def _act(command: Command) -> object:
    """Return what carries *command* out; None if it is wrong."""
    try:
        return find(command).act
    except InvalidRequest:
        return None


def _items(command: Command) -> Sequence[tuple[bytes, bytes]] | None:
    """Return what *command* sets, if it does only that; None also if it is wrong."""
    act = _act(command)
    if not isinstance(act, Store):
        return None
    try:
        return act.items(command)
    except InvalidRequest:
        return None


def _size(items: Sequence[tuple[bytes, bytes]]) -> int:
    return sum(len(key) + len(value) for key, value in items)
