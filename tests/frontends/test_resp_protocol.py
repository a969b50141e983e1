"""The redis protocol without I/O: every byte stream, however it is chopped up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.frontends.resp_protocol import (
    ARGUMENTS_MAX,
    COMMAND_BYTES_MAX,
    INLINE_BYTES_MAX,
    OK,
    Command,
    CommandParser,
    Failure,
    Reply,
    encode,
    split_inline,
)

arguments = st.binary(max_size=40)
commands = st.lists(arguments, min_size=1, max_size=6)


def packed(command: Command) -> bytes:
    """Return the array of bulk strings that a client library sends."""
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)


def parse(*pieces: bytes) -> tuple[list[Command], str | None]:
    parser = CommandParser()
    found = [command for piece in pieces for command in parser.feed(piece)]
    return found, parser.failure


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@given(st.lists(commands, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_commands_come_out_as_they_went_in(sent: list[Command], cuts: list[int]) -> None:
    """Whatever the network makes of a stream, its commands are the same."""
    data = b"".join(packed(command) for command in sent)

    assert parse(*chopped(data, cuts)) == (sent, None)


def test_a_stream_can_be_cut_at_every_byte() -> None:
    """A command is complete with its last byte, and not before."""
    data = packed([b"SET", b"k", b"a\r\n*1\r\n$4\r\nb"]) + b"PING  'x y'\r\n" + packed([b"GET", b""])
    expected: list[Command] = [[b"SET", b"k", b"a\r\n*1\r\n$4\r\nb"], [b"PING", b"x y"], [b"GET", b""]]

    for cut in range(len(data) + 1):
        assert parse(data[:cut], data[cut:]) == (expected, None)
    assert parse(*[bytes([byte]) for byte in data]) == (expected, None)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_never_crash_the_parser(pieces: list[bytes]) -> None:
    """Noise is either commands or a failure, the same however it is chopped up, and a failure is the end."""
    parser = CommandParser()
    for piece in pieces:
        before = parser.failure
        found = parser.feed(piece)
        assert before is None or not found
        assert all(found)
    whole = CommandParser()
    whole.feed(b"".join(pieces))
    assert (parser.failure is None) == (whole.failure is None)


@given(commands, st.data())
def test_almost_right_bytes_never_crash_the_parser(command: Command, data: st.DataObject) -> None:
    """One wrong byte in a command leads to other commands, to waiting or to a failure."""
    stream = bytearray(packed(command))
    stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))

    whole = parse(bytes(stream))

    assert parse(*[bytes([byte]) for byte in stream]) == whole


@pytest.mark.parametrize(
    ("stream", "failure"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*-1\r\n", "invalid multibulk length"),
        (b"*1_0\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*%d\r\n" % (ARGUMENTS_MAX + 1), "invalid multibulk length"),
        (b"*00000000000000000001", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$+1\r\n", "invalid bulk length"),
        (b"*1\r\n$ 1\r\n", "invalid bulk length"),
        (b"*1\r\n$3\r\nabcd\r\n", "expected CRLF after a bulk string"),
        (b"*1\r\n$%d\r\n" % (COMMAND_BYTES_MAX + 1), "at most"),
        (b"*2\r\n$1\r\na\r\n$%d\r\n" % COMMAND_BYTES_MAX, "at most"),
        (b"\x16\x03\x01\x02\x00", "expected '*', got '\\x16'"),  # A TLS client, who waits for an answer.
        (b"a" * INLINE_BYTES_MAX, "too big inline request"),
        (b"SET k 'v\r\n", "unbalanced quotes in request"),
        (b"GET a\x00b\r\n", "invalid byte in inline request"),
    ],
)
def test_what_no_client_library_sends_is_a_failure(stream: bytes, failure: str) -> None:
    """The failure comes as soon as the bytes can't become right any more, and ends the stream."""
    found, said = parse(stream, packed([b"PING"]))

    assert found == []
    assert said is not None
    assert failure in said


def test_commands_before_a_failure_still_count() -> None:
    """A client that has sent a good command gets its answer, whatever it sends next."""
    assert parse(packed([b"PING"]) + b"*1\r\nPING\r\n") == ([[b"PING"]], "expected '$', got 'P'")


def test_the_longest_command_in_small_pieces_takes_linear_time() -> None:
    """A long value isn't looked at again with every piece of it that arrives."""
    value = bytes(COMMAND_BYTES_MAX - 4)
    data = packed([b"SET", b"k", value])
    parser = CommandParser()

    found = []
    for start in range(0, len(data), 1_000):
        found += parser.feed(data[start : start + 1_000])
        assert parser.partial == (not found)

    assert found == [[b"SET", b"k", value]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b"  \t ", []),
        (b"PING", [b"PING"]),
        (b" SET  key\tvalue ", [b"SET", b"key", b"value"]),
        (rb'SET "a b" "\n\r\t\\\"\x41\xff\q"', [b"SET", b"a b", b'\n\r\t\\"A\xffq']),
        (rb"SET 'it\'s' 'a\n'", [b"SET", b"it's", rb"a\n"]),
        (b"GET ''", [b"GET", b""]),
        ("GET ä".encode(), [b"GET", "ä".encode()]),
        (b'GET "a', None),
        (b"GET 'a", None),
        (b'GET "a"b', None),
        (b'GET a"b"', None),
    ],
)
def test_inline_commands_are_split_like_a_shell_would(line: bytes, words: list[bytes] | None) -> None:
    """A person at netcat can write any bytes, with quotes and escapes."""
    assert split_inline(line) == words


def test_empty_lines_and_empty_arrays_are_no_commands() -> None:
    """redis' own server ignores them, and people press return."""
    assert parse(b"\r\n\n*0\r\n" + packed([b"PING"])) == ([[b"PING"]], None)


@pytest.mark.parametrize(
    ("reply", "resp2", "resp3"),
    [
        (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
        (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (-7, b":-7\r\n", b":-7\r\n"),
        ("PONG", b"+PONG\r\n", b"+PONG\r\n"),
        (OK, b"+OK\r\n", b"+OK\r\n"),
        (Failure("ERR two\r\nlines"), b"-ERR two lines\r\n", b"-ERR two lines\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        ([b"0", [None, 1]], b"*2\r\n$1\r\n0\r\n*2\r\n$-1\r\n:1\r\n", b"*2\r\n$1\r\n0\r\n*2\r\n_\r\n:1\r\n"),
        ({b"a": 1, b"b": []}, b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*0\r\n", b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*0\r\n"),
    ],
)
def test_replies_are_written_as_each_protocol_wants_them(reply: Reply, resp2: bytes, resp3: bytes) -> None:
    """RESP3 has a null and maps; in RESP2 they are a missing bulk string and flat arrays."""
    assert encode(reply, 2) == resp2
    assert encode(reply, 3) == resp3
