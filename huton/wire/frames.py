"""Frames: how bytes on a connection between peers are cut into pieces that are whole or refused.

A frame, its numbers big-endian:

    offset  size  field
         0     2  magic, the letters "hu"
         2     1  version of this header, 1
         3     1  kind, see FrameKind
         4     4  n, the length of the payload
         8     4  CRC-32 of bytes 0 to 7 and the payload
        12     n  payload
"""

from __future__ import annotations

import enum
import struct
import zlib
from typing import Final, NamedTuple

from huton.errors import FrameError

__all__ = ["FRAME_BYTES_MAX", "HELLO_BYTES_MAX", "Frame", "FrameKind", "FrameReader", "encode_frame"]

FRAME_BYTES_MAX: Final = 32 << 20
"""The longest payload. The largest legal AppendEntries is a full batch (``RaftConfig.append_bytes_max``,
1 MiB) and one entry of the largest command (16 MiB), each with its framing; the rest is room to spare."""

HELLO_BYTES_MAX: Final = 32 << 10
"""The longest payload of a stranger: what an unknown peer can make us hold before it has said who it is, and
all that the birth of the largest cluster needs."""

_MAGIC: Final = b"hu"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">2sBBII")


class FrameKind(enum.IntEnum):
    """What a payload is. The numbers are on the wire: never reuse one."""

    HANDSHAKE = 1
    MESSAGE = 2
    BIRTH = 3
    SNAPSHOT = 4
    CHUNK = 5


_PREFIXES: Final = {_MAGIC + bytes((_VERSION, kind)): kind for kind in FrameKind}


class Frame(NamedTuple):
    """One whole frame whose checksum was right."""

    kind: FrameKind
    payload: bytes


def encode_frame(kind: FrameKind, payload: bytes) -> bytes:
    """Return *payload* as one frame.

    Raises:
        ValueError: the payload is longer than ``FRAME_BYTES_MAX``: no peer would take it.
    """
    if len(payload) > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {len(payload)} bytes: at most {FRAME_BYTES_MAX}")
    header = _HEADER.pack(_MAGIC, _VERSION, kind, len(payload), 0)
    checksum = zlib.crc32(payload, zlib.crc32(header[:8]))
    return b"".join((header[:8], checksum.to_bytes(4, "big"), payload))


class FrameReader:
    """Bytes in, as they arrive; whole frames out.

    A bad frame is refused as early as it shows: a wrong magic, version or kind at its byte, a payload over
    the bound from the header alone. Once ``next_frame`` has raised, close the connection: behind a bad frame
    nobody knows where the next one starts, and it raises again whatever follows.

    Attributes:
        payload_bytes_max: the longest payload taken now. Starts small for a stranger; raise it
            (to ``FRAME_BYTES_MAX``) once the peer is known.
    """

    def __init__(self, payload_bytes_max: int = HELLO_BYTES_MAX) -> None:
        self.payload_bytes_max = payload_bytes_max
        # Invariant: never more than one incomplete frame plus what one ``feed`` brought, if the caller
        # takes every frame before it feeds again.
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their frame: not 0 at the end of a connection means it was cut."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the connection; then call ``next_frame`` until it returns None."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None if it is still incomplete.

        Raises:
            FrameError: what was fed is no frame of ours, is over the bound, or was damaged.
        """
        buffer = self._buffer
        if len(buffer) < _HEADER.size:
            if not any(prefix.startswith(buffer[: len(prefix)]) for prefix in _PREFIXES):
                raise _bad_prefix(bytes(buffer[:4]))
            return None
        kind = _PREFIXES.get(bytes(buffer[:4]))
        if kind is None:
            raise _bad_prefix(bytes(buffer[:4]))
        _, _, _, length, checksum = _HEADER.unpack_from(buffer)
        if length > self.payload_bytes_max:
            raise FrameError(f"a frame of {length} bytes: at most {self.payload_bytes_max} here")
        end = _HEADER.size + length
        if len(buffer) < end:
            return None
        payload = bytes(memoryview(buffer)[_HEADER.size : end])
        if zlib.crc32(payload, zlib.crc32(buffer[:8])) != checksum:
            raise FrameError(f"a frame of {length} bytes arrived damaged: its checksum is wrong")
        del buffer[:end]
        return Frame(kind, payload)


def _bad_prefix(prefix: bytes) -> FrameError:
    if not _MAGIC.startswith(prefix[:2]):
        return FrameError(f"{prefix!r} does not begin a huton frame")
    if prefix[2] != _VERSION:
        return FrameError(f"frame version {prefix[2]}: this node speaks version {_VERSION}")
    return FrameError(f"frame kind {prefix[3]} is unknown")
