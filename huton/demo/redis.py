"""One redis command over one connection: enough to show that redis clients are understood."""

from __future__ import annotations

import socket
from typing import Final

from huton.config import Address
from huton.errors import RemoteError

__all__ = ["redis_command"]

TIMEOUT: Final = 15.0
"""Seconds to wait for the answer."""


def redis_command(address: Address, *words: bytes) -> bytes | None:
    """Send one command and return its answer: a string or number as bytes, or None for a missing value.

    Raises:
        RemoteError: the answer is an error, or no simple answer.
        OSError: the connection failed.
    """
    with socket.create_connection((address.host, address.port), TIMEOUT) as connection:
        connection.sendall(
            b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)])
        )
        with connection.makefile("rb") as answer:
            line = answer.readline().removesuffix(b"\r\n")
            match line[:1]:
                case b"+" | b":":
                    return line[1:]
                case b"$":
                    length = int(line[1:])
                    return None if length < 0 else answer.read(length)
    raise RemoteError(f"redis at {address} answered {line!r} to {words[0]!r}")
