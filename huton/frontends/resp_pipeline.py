"""Carry out the commands of one connection, in order, yet not one by one.

What has arrived together is cut into runs. A run of lookups shares one linearizable read. A run of writes is
submitted in order without waiting for one to end before the next, and neighbours that only set keys share one
atomic write. A run begins when everything before it has ended: so a read sees every earlier write of its
connection, and no later one. Replies are in the order of the commands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from huton.errors import InvalidRequest, RequestError
from huton.frontends.resp_commands import find
from huton.frontends.resp_protocol import OK, Command, Failure, Reply, encode
from huton.frontends.resp_session import Act, Lookup, Session, Store, Write, failure_of

__all__ = ["Pipeline"]

RUN_COMMANDS_MAX: Final = 256
"""Commands in a run."""

SHARED_KEYS_MAX: Final = 256
"""Keys of neighbouring commands that share one read or write; a command with more goes alone."""

SHARED_BYTES_MAX: Final = 262_144
"""Bytes of neighbouring commands that share one write; a longer command goes alone."""

OPEN_TO_ALL: Final = (b"AUTH", b"HELLO", b"QUIT", b"RESET", b"POST", b"HOST:")
"""What a client may ask before it has given the password; the last two close its connection."""

REPLY_BYTES: Final = 65_536
"""Replies are sent when they amount to this, or when there is nothing left to do."""


class Pipeline:
    """The commands of one connection.

    Args:
        session: whose.
        send: sends bytes to the client; waits while the client takes none, and so do its commands.
    """

    def __init__(self, session: Session, send: Callable[[bytes | bytearray], Awaitable[None]]) -> None:
        self._session = session
        self._send = send
        self._out = bytearray()

    def reply(self, reply: Reply) -> None:
        """Add *reply* to what will be sent."""
        self._out += encode(reply, self._session.protocol)

    async def flush(self) -> None:
        """Send what has been replied so far."""
        if self._out:
            data, self._out = self._out, bytearray()
            await self._send(data)

    async def carry_out(self, commands: Sequence[Command]) -> None:
        """Carry out *commands*, up to one that closes the connection."""
        self._session.door.commands += len(commands)
        done = 0
        while done < len(commands) and not self._session.closing:
            if not self._session.known:
                await self._let_in(commands[done])
                done += 1
                continue
            run = _run_of(commands[done : done + RUN_COMMANDS_MAX])
            done += await self._carry_out_run(run)
            if len(self._out) >= REPLY_BYTES:
                await self.flush()

    async def _let_in(self, command: Command) -> None:
        """Reply to *command*, of a client that has not given the password yet."""
        if command[0].upper() in OPEN_TO_ALL:
            await self._carry_out_run(_run_of([command]))
        else:
            self.reply(Failure("NOAUTH Authentication required."))

    async def _carry_out_run(self, run: Sequence[tuple[Act | InvalidRequest, Command]]) -> int:
        """Reply to the first commands of *run*, at least one; return to how many."""
        act, command = run[0]
        if isinstance(act, Lookup):
            return await self._look_up([(act, command) for act, command in run if isinstance(act, Lookup)])
        if isinstance(act, Store | Write):
            return await self._write([(act, command) for act, command in run if isinstance(act, Store | Write)])
        if isinstance(act, InvalidRequest):
            self.reply(failure_of(act))
            return 1
        try:
            self.reply(await act(self._session, command))
        except RequestError as error:
            self.reply(failure_of(error))
        return 1

    async def _look_up(self, run: Sequence[tuple[Lookup, Command]]) -> int:
        keys: list[bytes] = []
        counts: list[int] = []
        for act, command in run:
            wanted = act.keys(command)
            if counts and len(keys) + len(wanted) > SHARED_KEYS_MAX:
                break
            keys += wanted
            counts.append(len(wanted))
        try:
            entries = await self._session.bucket.get_many(keys)
        except RequestError as error:
            if isinstance(error, InvalidRequest) and len(counts) > 1:
                return await self._look_up(run[:1])  # Only the command whose key is wrong shall fail.
            for _ in counts:
                self.reply(failure_of(error))
            return len(counts)
        position = 0
        for (act, _), count in zip(run, counts, strict=False):
            self.reply(act.answer(entries[position : position + count]))
            position += count
        return len(counts)

    async def _write(self, run: Sequence[tuple[Store | Write, Command]]) -> int:
        steps = _steps_of(run)
        if len(steps) == 1 or not self._session.door.born:
            # Before the birth of its cluster a node submits nothing, but keeps all waiting, in no order.
            steps = steps[:1]
            await steps[0].take(self._session)
        else:
            steps = await self._begin_in_order(steps)
        if steps[-1].refused is not None:
            # Only the command whose key or value is wrong shall fail.
            alone = [_Step([part]) for part in steps[-1].parts]
            for step in alone:
                await step.take(self._session)
            steps = [*steps[:-1], *alone]
        for step in steps:
            for _ in step.parts:
                self.reply(step.reply)
        return sum(len(step.parts) for step in steps)

    async def _begin_in_order(self, steps: Sequence[_Step]) -> Sequence[_Step]:
        """Take *steps*, each begun after the one before it was submitted; return those that were taken."""
        begun = 0

        async def begin(index: int) -> None:
            nonlocal begun
            if index and steps[index - 1].refused:
                return
            begun += 1
            if index + 1 < len(steps):
                # The next task runs when this one waits for the first time. By then its write is
                # submitted, since a bucket submits before it waits for anything.
                nursery.start_soon(begin, index + 1)
            await steps[index].take(self._session)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin, 0)
        return steps[:begun]


@attrs.define
class _Step:
    """One write of a bucket: one ``Write``, or some ``Store`` that share it.

    Attributes:
        parts: at least one.
        reply: to each of the parts, once the step is taken.
        refused: the error, if the parts have to be taken one by one because of it. Nothing was submitted.
    """

    parts: Sequence[tuple[Store | Write, Command]]
    reply: Reply = None
    refused: InvalidRequest | None = None

    async def take(self, session: Session) -> None:
        """Submit the write, before anything else is waited for, and wait for its end."""
        act, command = self.parts[0]
        try:
            if isinstance(act, Write):
                self.reply = await act.submit(session, command)
            else:
                # A key that is set twice has the later value: nobody else can tell.
                changes = {
                    key: value
                    for act, command in self.parts
                    if isinstance(act, Store)
                    for key, value in act.items(command)
                }
                if len(changes) == 1:
                    [(key, value)] = changes.items()
                    await session.bucket.set(key, value)
                else:
                    await session.bucket.set_many(changes)
                self.reply = OK
        except RequestError as error:
            self.reply = failure_of(error)
            if isinstance(error, InvalidRequest) and len(self.parts) > 1:
                self.refused = error


def _steps_of(run: Sequence[tuple[Store | Write, Command]]) -> Sequence[_Step]:
    """Put neighbouring stores into one step, as far as the bounds allow."""
    steps: list[_Step] = []
    shared: list[tuple[Store | Write, Command]] = []
    keys = size = 0
    for act, command in run:
        if isinstance(act, Write):
            steps.append(_Step([(act, command)]))
            shared = []
            continue
        # What follows the name is keys and values only.
        more_keys, more_size = len(command) // 2, sum(map(len, command))
        if not shared or keys + more_keys > SHARED_KEYS_MAX or size + more_size > SHARED_BYTES_MAX:
            shared = []
            keys = size = 0
            steps.append(_Step(shared))
        shared.append((act, command))
        keys += more_keys
        size += more_size
    return steps


def _run_of(commands: Sequence[Command]) -> list[tuple[Act | InvalidRequest, Command]]:
    """Return the first of *commands*, and those after it that may be carried out with it, with what they do."""
    run: list[tuple[Act | InvalidRequest, Command]] = []
    kinds: tuple[type, ...] = ()
    for command in commands:
        act: Act | InvalidRequest
        try:
            act = find(command)
        except InvalidRequest as error:
            act = error
        if run and not isinstance(act, kinds):
            break
        run.append((act, command))
        if isinstance(act, Lookup):
            kinds = (Lookup,)
        elif isinstance(act, Store | Write):
            kinds = (Store, Write)
        else:
            break
    return run
