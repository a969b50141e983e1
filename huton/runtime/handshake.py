"""How two nodes introduce themselves on a new connection, and what the links ask of their node about it."""

from __future__ import annotations

import ssl
from typing import Final, Protocol

import trio

from huton.errors import FrameError, NameTaken, NotCertified, RemoteError, WrongCluster
from huton.raft.types import NodeId
from huton.wire import (
    BirthMessage,
    Frame,
    FrameKind,
    FrameReader,
    Hello,
    PeerMessage,
    Refusal,
    RefusalReason,
    common_version,
    decode_handshake,
    encode_frame,
    encode_handshake,
    member_name,
)

__all__ = ["Host", "decode_hello", "introduce", "next_frame", "payload_of", "tls_failure", "welcome"]

RECEIVE_BYTES: Final = 1 << 18
"""The most that is taken from a connection at a time."""


class Host(Protocol):
    """What the links ask of the node they belong to. All of it returns at once, but for what is async."""

    @property
    def cluster_id(self) -> bytes | None:
        """The cluster this node belongs to, or None."""
        ...

    def hello(self, expected: NodeId | None) -> Hello:
        """Return who this node is, to be said to *expected*."""
        ...

    def check(self, hello: Hello) -> None:
        """Say whether this node may talk to whoever says *hello*.

        Raises:
            WrongCluster: it belongs to another cluster.
            NameTaken: another node bears its name.
        """
        ...

    def met(self, hello: Hello) -> None:
        """A handshake with another node went well."""
        ...

    def refused(self, error: RemoteError) -> None:
        """Another node refuses to talk to this one."""
        ...

    def receive(self, sender: NodeId, message: PeerMessage) -> None:
        """A message arrived from a member of this node's cluster."""
        ...

    async def receive_snapshot(
        self, stream: trio.abc.Stream, reader: FrameReader, sender: NodeId, first: Frame
    ) -> None:
        """A member of this node's cluster begins to send a snapshot on *stream*."""
        ...

    def hear(self, sender: NodeId, message: BirthMessage) -> None:
        """A message about a birth arrived."""
        ...

    def reached(self, peer: NodeId) -> None:
        """A connection to *peer* stands: messages can be sent to it."""
        ...

    def lost(self, peer: NodeId) -> None:
        """The connection to *peer* broke: what was under way is probably lost."""
        ...


async def introduce(host: Host, stream: trio.abc.Stream, expected: NodeId | None) -> Hello:
    """Say who we are on a connection that we dialled, and return who answers.

    Args:
        expected: who has to answer; None for whoever is there, which may be *host* itself.

    Raises:
        RemoteError: one of the two refuses to talk to the other.
        trio.BrokenResourceError: the connection broke.
    """
    ours = host.hello(expected)
    await stream.send_all(encode_frame(FrameKind.HANDSHAKE, encode_handshake(ours)))
    frame = await next_frame(stream, FrameReader())
    if frame is None:
        raise FrameError("hung up without a word")
    answer = decode_handshake(payload_of(frame, FrameKind.HANDSHAKE))
    if isinstance(answer, Refusal):
        error = _error(answer)
        host.refused(error)
        raise error
    common_version(answer)
    if expected is not None and answer.node != expected:
        raise RemoteError(f"{answer.node} answers where {expected} was expected")
    _check_certificate(stream, answer)
    if answer.node != ours.node:
        host.check(answer)
    return answer


async def welcome(host: Host, stream: trio.abc.Stream, hello: Hello, full: str | None) -> None:
    """Answer *hello*, on a connection that we accepted, with ours or with a refusal.

    Args:
        full: why there is no room for one more connection; None if there is.

    Raises:
        RemoteError: it was refused.
        trio.BrokenResourceError: the connection broke.
    """
    ours = host.hello(None)
    refusal = _judge(host, stream, ours, hello, full)
    await stream.send_all(encode_frame(FrameKind.HANDSHAKE, encode_handshake(refusal or ours)))
    if refusal is not None:
        raise _error(refusal)


def _judge(host: Host, stream: trio.abc.Stream, ours: Hello, hello: Hello, full: str | None) -> Refusal | None:
    """Return why we won't talk to whoever says *hello*; None if we will."""
    try:
        common_version(hello)
        _check_certificate(stream, hello)
        if hello.node != ours.node:
            host.check(hello)
    except WrongCluster as error:
        return Refusal(RefusalReason.WRONG_CLUSTER, str(error))
    except NameTaken as error:
        return Refusal(RefusalReason.NAME_TAKEN, str(error))
    except NotCertified as error:
        return Refusal(RefusalReason.NOT_CERTIFIED, str(error))
    except RemoteError as error:
        return Refusal(RefusalReason.VERSION, str(error))
    if hello.expected not in (None, ours.node):
        return Refusal(RefusalReason.NOT_EXPECTED, f"{ours.node} is here, not {hello.expected}")
    return None if full is None else Refusal(RefusalReason.OVERLOADED, full)


ERRORS: Final = {
    RefusalReason.WRONG_CLUSTER: WrongCluster,
    RefusalReason.NAME_TAKEN: NameTaken,
    RefusalReason.NOT_CERTIFIED: NotCertified,
}


def _error(refusal: Refusal) -> RemoteError:
    return ERRORS.get(refusal.reason, RemoteError)(refusal.message)


def _check_certificate(stream: trio.abc.Stream, hello: Hello) -> None:
    """Check that whoever says *hello* may bear that name: with TLS, the certificate says so.

    Raises:
        NotCertified: it says something else.
    """
    if not isinstance(stream, trio.SSLStream):
        return
    certificate = stream.getpeercert() or {}
    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if member_name(hello.node) not in names:
        shown = ", ".join(names) or "nobody"
        raise NotCertified(f"{hello.node} shows a certificate of {shown}, not of {member_name(hello.node)!r}")


def tls_failure(error: trio.BrokenResourceError) -> str | None:
    """Return what TLS had against the connection, if that is how it broke."""
    cause = error.__cause__
    return f"TLS: {cause.reason or cause}" if isinstance(cause, ssl.SSLError) else None


async def next_frame(stream: trio.abc.Stream, reader: FrameReader) -> Frame | None:
    """Return the next frame; None if the peer hung up in good order.

    Raises:
        FrameError: what arrives is no frame.
        trio.BrokenResourceError: the connection broke.
    """
    while (frame := reader.next_frame()) is None:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            if reader.buffered:
                raise FrameError("hung up in the middle of a frame")
            return None
        reader.feed(data)
    return frame


def decode_hello(frame: Frame) -> Hello:
    """Return the Hello that *frame*, the first on a connection, has to be.

    Raises:
        FrameError: it is something else.
    """
    hello = decode_handshake(payload_of(frame, FrameKind.HANDSHAKE))
    if isinstance(hello, Refusal):
        raise FrameError("a handshake that begins with a refusal")
    return hello


def payload_of(frame: Frame, kind: FrameKind) -> bytes:
    """Return what is in *frame*, which has to be of this *kind*.

    Raises:
        FrameError: it is of another one.
    """
    if frame.kind is not kind:
        raise FrameError(f"a {frame.kind.name} frame where a {kind.name} frame has to be")
    return frame.payload
