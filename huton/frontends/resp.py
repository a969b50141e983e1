"""The door for redis clients.

A connection is one task: it reads what has arrived, which may be many commands (a *pipeline*), carries
them out in order, writes all replies, and only then reads on, which holds back a client that doesn't take
its replies.
"""

from __future__ import annotations

import ssl
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

import trio

from huton.config import Address
from huton.env import Env
from huton.frontends.listening import RECEIVE_BYTES, Tally, listen, say_goodbye, send
from huton.frontends.resp_admin import CONNECTIONS_MAX
from huton.frontends.resp_pipeline import Pipeline
from huton.frontends.resp_protocol import CommandParser, Failure
from huton.frontends.resp_session import Door, Session

if TYPE_CHECKING:
    from huton.runtime.node import Node

__all__ = ["serve_resp"]

PARTIAL_SECONDS: Final = 30.0
"""A client that has begun a command has to send some of its rest within this time.

Between commands a connection may be idle for ever, as those of a client's pool are.
"""


async def serve_resp(
    node: Node,
    env: Env,
    address: Address,
    *,
    tls: ssl.SSLContext | None = None,
    password: str | None = None,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve redis clients of *node* at *address*, until cancelled.

    Args:
        tls: what clients are spoken to through, if anything.
        password: what a client has to give with AUTH before anything else, if anything.
        task_status: is told the address with the port it really got.

    Raises:
        OSError: the address can't be bound.
    """
    tally = Tally()
    door = Door(node, env, tally, version=_version(), password=password)

    async def handle(stream: trio.abc.Stream) -> None:
        await _converse(Session(door, tally.accepted), stream)

    await listen(
        env,
        address,
        handle,
        tls=tls,
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


async def _converse(session: Session, stream: trio.abc.Stream) -> None:
    """Answer commands until the client, or what it sends, ends it."""
    parser = CommandParser(stranger=not session.known)
    pipeline = Pipeline(session, partial(send, stream))
    while not session.closing:
        data = await _receive(stream, midway=parser.partial)
        if not data:
            return
        await pipeline.carry_out(parser.feed(data))
        if session.known:
            parser.trust()
        if parser.failure is not None and not session.closing:
            pipeline.reply(Failure(f"ERR Protocol error: {parser.failure}"))
            session.closing = True
        await pipeline.flush()
    await say_goodbye(stream)


async def _receive(stream: trio.abc.Stream, *, midway: bool) -> bytes | bytearray:
    """Return what has arrived; nothing if the client is gone, or sleeps in the middle of a command."""
    if not midway:
        return await stream.receive_some(RECEIVE_BYTES)
    with trio.move_on_after(PARTIAL_SECONDS):
        return await stream.receive_some(RECEIVE_BYTES)
    return b""
