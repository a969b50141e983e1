"""Accept connections, so that what one of them does harms no other."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from huton.config import Address
from huton.env import Env

__all__ = ["RECEIVE_BYTES", "SEND_SECONDS", "Tally", "listen", "say_goodbye", "send"]

log = logging.getLogger("huton.frontends")

RECEIVE_BYTES: Final = 65_536
"""Bytes taken from a connection at once."""

SEND_SECONDS: Final = 60.0
"""A client that doesn't take a piece of a long answer in this time is cut off."""

SEND_PIECE_BYTES: Final = 131_072

HANDSHAKE_SECONDS: Final = 10.0
"""A client that has not come through TLS by then is cut off."""

GOODBYE_SECONDS: Final = 2.0
GOODBYE_BYTES: Final = 1 << 20
"""How long, and how much of what a client still sends, is waited out before its connection is closed."""


@attrs.define
class Tally:
    """How many connections a door has: open now, and accepted in all."""

    open: int = 0
    accepted: int = 0


async def listen(
    env: Env,
    address: Address,
    handle: Callable[[trio.abc.Stream], Awaitable[None]],
    *,
    tls: ssl.SSLContext | None,
    tally: Tally,
    connections_max: int,
    refusal: bytes,
    task_status: trio.TaskStatus[Address],
) -> None:
    """Listen at *address* and run *handle* for each connection, until cancelled.

    An error of *handle* ends its connection, and is logged if it isn't the network's.

    Args:
        tls: what clients are spoken to through, if anything.
        tally: is kept up to date.
        connections_max: with so many open, one more gets *refusal* and is closed.
        task_status: is told the address with the port it really got.

    Raises:
        OSError: the address can't be bound.
    """

    async def keep(stream: trio.abc.Stream) -> None:
        tally.accepted += 1
        tally.open += 1
        try:
            async with stream:
                if tally.open > connections_max:
                    await send(stream, refusal)
                else:
                    await _shake_hands(stream)
                    await handle(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client went away, or was cut off; its requests end as they end.
        except Exception:
            log.exception("a client's connection to %s failed", address)
        finally:
            tally.open -= 1

    listeners = await env.network.listen(address.host, address.port)
    port = env.network.bound_port(listeners[0])
    if tls is not None:
        listeners = [trio.SSLListener(listener, tls, https_compatible=True) for listener in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, keep, listeners)
        task_status.started(Address(address.host, port))


async def _shake_hands(stream: trio.abc.Stream) -> None:
    """Let TLS begin, if it is to.

    Raises:
        BrokenResourceError: it did not, or not in time.
    """
    if isinstance(stream, trio.SSLStream):
        with trio.move_on_after(HANDSHAKE_SECONDS) as patience:
            await stream.do_handshake()
        if patience.cancelled_caught:
            raise trio.BrokenResourceError(f"no TLS handshake in {HANDSHAKE_SECONDS:g} seconds")


async def send(stream: trio.abc.Stream, data: bytes | bytearray) -> None:
    """Send *data* to a client that may be slow, but with much data not endlessly.

    Raises:
        BrokenResourceError: the client is gone, or took too little in ``SEND_SECONDS``.
    """
    if len(data) <= SEND_PIECE_BYTES:
        # The usual case, which saves a cancel scope. A client that takes none of it holds no more
        # than one that is idle.
        await stream.send_all(data)
        return
    view = memoryview(data)
    for start in range(0, len(data), SEND_PIECE_BYTES):
        with trio.move_on_after(SEND_SECONDS) as patience:
            await stream.send_all(view[start : start + SEND_PIECE_BYTES])
        if patience.cancelled_caught:
            raise trio.BrokenResourceError(f"the client took too little in {SEND_SECONDS:g} seconds")


async def say_goodbye(stream: trio.abc.Stream) -> None:
    """End a connection on which the client may be sending still.

    Closing at once would make the kernel throw away an answer that is under way (RFC 9112 §9.6): say
    that nothing more will come, and read until the client has understood. TLS says it when it is closed.
    """
    if not isinstance(stream, trio.abc.HalfCloseableStream):
        return
    with trio.move_on_after(GOODBYE_SECONDS):
        await stream.send_eof()
        unread = GOODBYE_BYTES
        while unread > 0:
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                return
            unread -= len(data)
