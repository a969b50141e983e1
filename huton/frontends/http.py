"""The door for HTTP clients: h11 speaks the protocol, ``http_routes`` knows the resources.

A connection is one task that carries out one request after the other, also when a client sends more of them
before it has its answers.
"""

from __future__ import annotations

import hmac
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
import trio

from huton.config import Address
from huton.env import Env
from huton.frontends.http_messages import Problem, Response
from huton.frontends.http_routes import Request, find_route, perform
from huton.frontends.listening import RECEIVE_BYTES, Tally, listen, say_goodbye, send

if TYPE_CHECKING:
    from huton.runtime.node import Node

__all__ = ["serve_http"]

CONNECTIONS_MAX: Final = 1_024
"""Connections of one door; one more gets 503 and is closed."""

TARGET_BYTES_MAX: Final = 8_192
"""Bytes of a request target; a longer one gets 414."""

HEADER_BYTES_MAX: Final = 32_768
"""Bytes of a request line and headers that may pile up incomplete; more get 431."""

BODY_BYTES_MAX: Final = 16 << 20
"""Bytes of a request body; more get 413. A node may take less as a value."""

IDLE_SECONDS: Final = 75.0
"""A connection without a request for so long is closed."""

REQUEST_SECONDS: Final = 30.0
"""A client that has begun a request has to send its headers, and then each piece of its body, in this time."""


async def serve_http(
    node: Node,
    env: Env,
    address: Address,
    *,
    tls: ssl.SSLContext | None = None,
    token: str | None = None,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP clients of *node* at *address*, until cancelled.

    Args:
        tls: what clients are spoken to through, if anything.
        token: what a client has to show as ``Authorization: Bearer``, if anything.
        task_status: is told the address with the port it really got.

    Raises:
        OSError: the address can't be bound.
    """

    async def handle(stream: trio.abc.Stream) -> None:
        await _Connection(node, stream, token).run()

    await listen(
        env,
        address,
        handle,
        tls=tls,
        tally=Tally(),
        connections_max=CONNECTIONS_MAX,
        refusal=_refusal(),
        task_status=task_status,
    )


def _refusal() -> bytes:
    response = Problem(503, "overloaded", "this node has too many connections").response()
    return b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (
        len(response.body),
        response.body,
    )


class _Connection:
    def __init__(self, node: Node, stream: trio.abc.Stream, token: str | None) -> None:
        self._node = node
        self._token = token
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        # Whether the response's body is left out: that of a request with the method HEAD.
        self._head_only = False

    async def run(self) -> None:
        """Answer requests until the client, or what it sends, ends it."""
        while True:
            try:
                request = await self._next_request()
                if request is None:
                    return
                response = await self._answer(request)
            except h11.RemoteProtocolError as error:
                response = Problem(error.error_status_hint, "bad-request", str(error)).response()
            except Problem as problem:
                response = problem.response()
            await self._respond(response)
            if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                await say_goodbye(self._stream)
                return
            self._h11.start_next_cycle()

    async def _next_request(self) -> h11.Request | None:
        """Return the next request; None if there will be none."""
        self._head_only = False
        if not self._h11.trailing_data[0]:
            with trio.move_on_after(IDLE_SECONDS):
                await self._receive()
            if not self._h11.trailing_data[0]:
                return None  # Closed by the client, or idle for too long.
        with trio.move_on_after(REQUEST_SECONDS):
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                await self._receive()
            return event if isinstance(event, h11.Request) else None
        raise Problem(408, "timeout", "the request did not arrive in time")

    async def _receive(self) -> None:
        self._h11.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))

    async def _answer(self, head: h11.Request) -> Response:
        """Return the response to a request whose body has yet to be read.

        Raises:
            Problem: it can't be carried out. Its body may be unread.
            RemoteProtocolError: its body is malformed.
        """
        self._head_only = head.method == b"HEAD"
        if len(head.target) > TARGET_BYTES_MAX:
            raise Problem(414, "target-too-long", f"the request target is longer than {TARGET_BYTES_MAX} bytes")
        # Whoever has no token sends no body that anybody reads.
        self._check_token(head)
        try:
            method, names, query = find_route(head.method, head.target)
        except Problem:
            # Who waits to be asked for the body need not send it in vain; anybody else's is in the
            # way of the next request.
            if not self._h11.they_are_waiting_for_100_continue:
                await self._body(head)
            raise
        body = await self._body(head)
        return await perform(self._node, method, Request(names, query, list(head.headers), body))

    def _check_token(self, head: h11.Request) -> None:
        """Check that the client may ask at all (RFC 6750).

        Raises:
            Problem: it shows no token, or another one.
        """
        if self._token is None:
            return
        shown = next((value for name, value in head.headers if name == b"authorization"), b"")
        scheme, _, token = shown.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token.encode()):
            challenge = (b"WWW-Authenticate", b'Bearer realm="huton"')
            raise Problem(
                401, "unauthorized", "this needs the header Authorization: Bearer TOKEN", headers=(challenge,)
            )

    async def _body(self, head: h11.Request) -> bytes:
        for name, text in head.headers:
            # h11 has checked that it is a number.
            if name == b"content-length" and int(text) > BODY_BYTES_MAX:
                raise self._too_large()
        if self._h11.they_are_waiting_for_100_continue:
            await send(
                self._stream,
                self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b"",
            )
        body = bytearray()
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_BYTES_MAX:
                    raise self._too_large()
            else:
                with trio.move_on_after(REQUEST_SECONDS) as patience:
                    await self._receive()
                if patience.cancelled_caught:
                    raise Problem(408, "timeout", "the request's body did not arrive in time")

    def _too_large(self) -> Problem:
        return Problem(413, "body-too-large", f"the request's body is longer than {BODY_BYTES_MAX} bytes")

    async def _respond(self, response: Response) -> None:
        headers = list(response.headers)
        if response.status not in (204, 304):
            headers.append((b"Content-Length", b"%d" % len(response.body)))
        if self._h11.their_state not in (h11.DONE, h11.MUST_CLOSE):
            # What is left of this request would be taken for the next one.
            headers.append((b"Connection", b"close"))
        reason = HTTPStatus(response.status).phrase.encode()
        out = [self._h11.send(h11.Response(status_code=response.status, headers=headers, reason=reason))]
        if not self._head_only:
            out.append(self._h11.send(h11.Data(data=response.body)))
        out.append(self._h11.send(h11.EndOfMessage()))
        await send(self._stream, b"".join(filter(None, out)))
