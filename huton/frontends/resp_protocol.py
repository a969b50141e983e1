"""redis' protocol without I/O: bytes in, commands out; replies in, bytes out.

    parser = CommandParser()
    parser.feed(b"*2\\r\\n$3\\r\\nGET\\r\\n$3\\r\\nada\\r\\n")     # [(b"GET", b"ada")]

Requests are arrays of bulk strings, or *inline*: words on a line, as a person types them into netcat.
The parser is strict and bounded: what no client library sends is a failure, after which the connection
is answered with an error and closed.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/ (RESP2 and RESP3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

__all__ = [
    "ARGUMENTS_MAX",
    "COMMAND_BYTES_MAX",
    "INLINE_BYTES_MAX",
    "NO_REPLY",
    "OK",
    "Command",
    "CommandParser",
    "Encoded",
    "Failure",
    "Reply",
    "encode",
    "split_inline",
]

ARGUMENTS_MAX: Final = 20_001
"""Arguments of one command, its name included: MSET with 10,000 keys. More is a protocol failure."""

COMMAND_BYTES_MAX: Final = 16 << 20
"""Bytes of all arguments of one command together; more is a protocol failure."""

INLINE_BYTES_MAX: Final = 16_384
"""Bytes of an inline command's line; more is a protocol failure."""

STRANGER_ARGUMENTS_MAX: Final = 10
STRANGER_BYTES_MAX: Final = 16_384
"""Arguments and bytes of a command that comes before the password."""

HEADER_BYTES_MAX: Final = 16
"""Bytes of a ``*3`` or ``$10`` line: its digits are few."""

Command = Sequence[bytes]
"""A command's name and its arguments; never empty."""

# ------------------------------------------------------------------- requests


class CommandParser:
    """Cuts a stream of bytes, however it was chopped up, into commands.

    Attributes:
        arguments_max, bytes_max: of one command; a connection whose client is not known yet gets less.
        failure: what was wrong with the stream, in redis' words; None while it is well-formed.
            After a failure nothing more is parsed: answer it and close the connection.
    """

    arguments_max: int
    bytes_max: int
    failure: str | None

    def __init__(self, *, stranger: bool = False) -> None:
        self.arguments_max = STRANGER_ARGUMENTS_MAX if stranger else ARGUMENTS_MAX
        self.bytes_max = STRANGER_BYTES_MAX if stranger else COMMAND_BYTES_MAX
        self.failure = None
        # What was received beyond the last thing understood: in _long, with _long_missing bytes yet to
        # come, if that is a piece of a bulk string; else in _tail, which is short.
        # Invariant: not (_tail and _long).
        self._tail = b""
        self._long = bytearray()
        self._long_missing = 0
        # The array being read; _missing == 0 between commands.
        self._missing = 0
        self._bulk: int | None = None
        self._arguments: list[bytes] = []
        self._arguments_bytes = 0

    def trust(self) -> None:
        """The client is known from now on."""
        self.arguments_max, self.bytes_max = ARGUMENTS_MAX, COMMAND_BYTES_MAX

    @property
    def partial(self) -> bool:
        """Whether a command was begun and its rest has yet to come."""
        return bool(self._missing or self._tail)

    def feed(self, data: bytes | bytearray) -> list[Command]:
        """Take in *data* and return the commands that are now complete, in order.

        Commands that came before a failure are still returned.
        """
        if self.failure is not None:
            return []
        data = bytes(data)  # Costs nothing if it is bytes already; slices of it are arguments.
        if self._long:
            # Not parsed again with each of its pieces, so that its cost is linear.
            self._long += data
            self._long_missing -= len(data)
            if self._long_missing > 0:
                return []
            data = bytes(self._long)
            self._long.clear()
        elif self._tail:
            data = self._tail + data
            self._tail = b""
        commands: list[Command] = []
        position = self._parse(data, commands)
        if position < len(data):
            self._keep(data[position:] if position else data)
        return commands

    def _keep(self, rest: bytes) -> None:
        if self._bulk is not None:
            self._long += rest
            self._long_missing = self._bulk + 2 - len(rest)
        else:
            self._tail = rest

    def _parse(self, data: bytes, commands: list[Command]) -> int:
        """Append the complete commands of *data*; return how much of it is used up.

        One loop on purpose: this runs for every byte of every client.
        """
        position = 0
        end = len(data)
        arguments = self._arguments
        while position < end:
            if self._missing == 0:
                if data[position] != 0x2A:  # "*"
                    after = self._parse_inline(data, position, commands)
                else:
                    after = self._parse_array_header(data, position)
                if after < 0:
                    return position
                position = after
                arguments = self._arguments
                continue
            length = self._bulk
            if length is None:
                line_end = data.find(b"\r\n", position, position + HEADER_BYTES_MAX)
                if line_end < 0:
                    self._check_unfinished(data, position, b"$")
                    return position
                length = self._bulk_length(data[position:line_end])
                if length is None:
                    return position
                position = line_end + 2
            stop = position + length
            if end < stop + 2:
                self._bulk = length
                return position
            if data[stop : stop + 2] != b"\r\n":
                self.failure = "expected CRLF after a bulk string"
                return position
            arguments.append(data[position:stop])
            position = stop + 2
            self._bulk = None
            self._missing -= 1
            if self._missing == 0:
                commands.append(arguments)
                arguments = self._arguments = []
                self._arguments_bytes = 0
        return position

    def _parse_array_header(self, data: bytes, position: int) -> int:
        """Return where the array's first element starts; -1 if the line isn't complete or is wrong."""
        line_end = data.find(b"\r\n", position, position + HEADER_BYTES_MAX)
        if line_end < 0:
            self._check_unfinished(data, position, b"*")
            return -1
        digits = data[position + 1 : line_end]
        if not digits.isdigit() or int(digits) > self.arguments_max:
            self.failure = "invalid multibulk length"
            return -1
        self._missing = int(digits)
        return line_end + 2

    def _bulk_length(self, line: bytes) -> int | None:
        digits = line[1:]
        if line[:1] != b"$":
            self.failure = f"expected '$', got {line[:1].decode('latin-1')!a}"
        elif not digits.isdigit():
            self.failure = "invalid bulk length"
        else:
            length = int(digits)
            self._arguments_bytes += length
            if self._arguments_bytes <= self.bytes_max:
                return length
            self.failure = f"invalid bulk length: a command holds at most {self.bytes_max} bytes"
        return None

    def _check_unfinished(self, data: bytes, position: int, first: bytes) -> None:
        """Fail on a header line that can't become a right one, instead of waiting for its end."""
        line = data[position : position + HEADER_BYTES_MAX]
        digits = line[1:].removesuffix(b"\r")
        if line[:1] != first:
            self.failure = f"expected '{first.decode()}', got {line[:1].decode('latin-1')!a}"
        elif len(line) == HEADER_BYTES_MAX or not (digits + b"0").isdigit():
            self.failure = "invalid bulk length" if first == b"$" else "invalid multibulk length"

    def _parse_inline(self, data: bytes, position: int, commands: list[Command]) -> int:
        """Return where the next command starts; -1 if the line isn't complete or is wrong."""
        first = data[position]
        if not (0x41 <= first & 0xDF <= 0x5A or first in b" \t\r\n"):
            # Names start with a letter: anything else is another protocol, or noise. Said at once,
            # since a client of another protocol may never send the end of a line.
            self.failure = f"expected '*', got {chr(first)!a}"
            return -1
        line_end = data.find(b"\n", position, position + INLINE_BYTES_MAX)
        if line_end < 0:
            if len(data) - position >= INLINE_BYTES_MAX:
                self.failure = "too big inline request"
            return -1
        line = data[position:line_end].removesuffix(b"\r")
        words = split_inline(line)
        if words is None or _CONTROL.search(line):
            self.failure = "unbalanced quotes in request" if words is None else "invalid byte in inline request"
            return -1
        if words:
            commands.append(words)
        return line_end + 1


_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_WORD: Final = re.compile(
    rb"""[ \t]*
    (?: "(?P<double>(?:[^"\\]|\\.)*)" (?=[ \t]|$)
      | '(?P<single>(?:[^'\\]|\\.)*)' (?=[ \t]|$)
      | (?P<bare>[^ \t"']+) (?=[ \t]|$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_NAMED_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_inline(line: bytes) -> list[bytes] | None:
    r"""Split a line into words; ``"a b\n\x00"`` and ``'it\'s'`` are one word each.

    Returns:
        The words; None if quotes don't match up, or sit within a word.
    """
    words = []
    position = 0
    line = line.rstrip(b" \t")
    while position < len(line):
        match = _WORD.match(line, position)
        if match is None:
            return None
        words.append(_unquote(match))
        position = match.end()
    return words


def _unquote(match: re.Match[bytes]) -> bytes:
    if match["double"] is not None:
        return _ESCAPE.sub(_unescape, match["double"])
    if match["single"] is not None:
        return match["single"].replace(b"\\'", b"'")
    return match["bare"]


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes.fromhex(match[1].decode())
    return _NAMED_ESCAPES.get(match[2], match[2])


# -------------------------------------------------------------------- replies


@attrs.frozen
class Encoded:
    """A reply whose bytes are the same in RESP2 and RESP3."""

    data: bytes


@attrs.frozen
class Failure:
    """An error reply.

    Attributes:
        message: its first word, in capitals, is for programs; line breaks become spaces.
    """

    message: str


Reply = bytes | int | str | None | Failure | Encoded | Sequence["Reply"] | Mapping[bytes, "Reply"]
"""bytes: a bulk string; str: a simple string (ASCII, no line breaks); None: null; a mapping: a map,
in RESP2 a flat array."""

OK: Final = Encoded(b"+OK\r\n")
NO_REPLY: Final = Encoded(b"")


def encode(reply: Reply, protocol: int) -> bytes:
    """Return the bytes of *reply* in RESP *protocol* 2 or 3."""
    if type(reply) is bytes:
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if type(reply) is Encoded:
        return reply.data
    if reply is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    out = bytearray()
    _encode_into(out, reply, protocol)
    return bytes(out)


def _encode_into(out: bytearray, reply: Reply, protocol: int) -> None:
    match reply:
        case None | bytes() | int() | Encoded():
            out += encode(reply, protocol)
        case str():
            out += b"+%b\r\n" % reply.encode("ascii")
        case Failure():
            out += b"-%b\r\n" % " ".join(reply.message.splitlines()).encode("utf-8", "backslashreplace")
        case Mapping():
            out += b"%%%d\r\n" % len(reply) if protocol == 3 else b"*%d\r\n" % (2 * len(reply))
            for key, value in reply.items():
                out += encode(key, protocol)
                _encode_into(out, value, protocol)
        case _:
            out += b"*%d\r\n" % len(reply)
            for item in reply:
                _encode_into(out, item, protocol)
