"""Frames: bytes in as they arrive, whole frames out, anything else refused at once."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from huton.errors import FrameError
from huton.kv.commands import COMMAND_BYTES_MAX
from huton.raft.messages import AppendEntries
from huton.raft.types import Entry, EntryKind, Index, NodeId, RaftConfig, Term
from huton.wire import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    Frame,
    FrameKind,
    FrameReader,
    decode_message,
    encode_frame,
    encode_message,
)

HEADER_SIZE = 12
NUMBER_MAX = (1 << 64) - 1

frames = st.builds(Frame, st.sampled_from(FrameKind), st.binary(max_size=60))


def read_all(reader: FrameReader) -> list[Frame]:
    found = []
    while (frame := reader.next_frame()) is not None:
        found.append(frame)
    return found


def test_bytes_of_a_frame_are_frozen() -> None:
    """docs/formats.md, "Between peers": a newer node must still find the header."""
    assert encode_frame(FrameKind.MESSAGE, b"abc").hex() == "68750102000000031c7eac4d616263"


@given(st.lists(frames, max_size=4), st.data())
def test_frames_arrive_whole_however_they_are_cut(sent: list[Frame], data: st.DataObject) -> None:
    """A TCP stream keeps the bytes and their order, and nothing of how they were written."""
    stream = b"".join(encode_frame(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = FrameReader()
    received = []

    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        received += read_all(reader)

    assert received == sent
    assert reader.buffered == 0


def test_frame_may_be_cut_at_every_byte() -> None:
    """Every position, header included; nothing comes before the last byte."""
    stream = encode_frame(FrameKind.BIRTH, b"payload")

    for cut in range(len(stream)):
        reader = FrameReader()
        reader.feed(stream[:cut])
        assert reader.next_frame() is None
        assert reader.buffered == cut
        reader.feed(stream[cut:])
        assert reader.next_frame() == Frame(FrameKind.BIRTH, b"payload")
        assert reader.next_frame() is None


@given(frames, st.data())
def test_every_flipped_bit_is_noticed(frame: Frame, data: st.DataObject) -> None:
    """A damaged frame is refused, or waits for bytes that never come; it is never taken for another."""
    stream = bytearray(encode_frame(*frame))
    bit = data.draw(st.integers(0, len(stream) * 8 - 1))
    stream[bit // 8] ^= 1 << bit % 8
    reader = FrameReader()
    reader.feed(stream)

    try:
        assert reader.next_frame() is None
    except FrameError:
        return
    assert struct.unpack_from(">I", stream, 4)[0] > len(frame.payload)


@given(st.binary(max_size=100))
@example(b"h")
@example(b"hu")
@example(b"hu\x01\x02")
def test_random_bytes_give_only_frame_errors(noise: bytes) -> None:
    """Issue 2: "Random bytes ...: a clear error and only that connection closes"."""
    reader = FrameReader()
    for byte in noise:
        reader.feed(bytes((byte,)))
        try:
            assert reader.next_frame() is None
        except FrameError:
            return
    assert noise[:2] == b"hu"[: len(noise)]


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (b"G", "does not begin a huton frame"),
        (b"GET / HTTP/1.1\r\n", "does not begin a huton frame"),
        (b"ht", "does not begin a huton frame"),
        (b"hu\x02", "frame version 2: this node speaks version 1"),
        (b"hu\x01\x00", "frame kind 0 is unknown"),
        (b"hu\x01\x63" + bytes(20), "frame kind 99 is unknown"),
        (encode_frame(FrameKind.MESSAGE, b"abc")[:-1] + b"d", "a frame of 3 bytes arrived damaged"),
    ],
)
def test_what_is_no_frame_is_refused_at_its_first_wrong_byte(stream: bytes, complaint: str) -> None:
    """The error says what came instead, and it stays: behind a bad frame nobody knows where the next one starts."""
    reader = FrameReader()
    reader.feed(stream)
    for _ in range(2):
        with pytest.raises(FrameError) as caught:
            reader.next_frame()
        assert complaint in str(caught.value)
        reader.feed(encode_frame(FrameKind.MESSAGE, b""))


@pytest.mark.parametrize("bound", [HELLO_BYTES_MAX, FRAME_BYTES_MAX])
def test_oversize_is_refused_from_the_header_alone(bound: int) -> None:
    """Issue 2: "an oversized frame"; not a byte of its payload is waited for."""
    header = b"hu\x01\x02" + struct.pack(">II", bound + 1, 0)
    reader = FrameReader(bound)
    reader.feed(header)

    with pytest.raises(FrameError, match=f"a frame of {bound + 1} bytes: at most {bound} here"):
        reader.next_frame()


def test_stranger_gets_little_room_and_a_known_peer_all() -> None:
    """What an unknown peer can make a node hold is bounded more tightly; the bound grows with the handshake."""
    longest = bytes(HELLO_BYTES_MAX)
    longer = bytes(HELLO_BYTES_MAX + 1)
    reader = FrameReader()
    reader.feed(encode_frame(FrameKind.HANDSHAKE, longest) + encode_frame(FrameKind.MESSAGE, longer))
    assert reader.next_frame() == Frame(FrameKind.HANDSHAKE, longest)

    reader.payload_bytes_max = FRAME_BYTES_MAX

    assert reader.next_frame() == Frame(FrameKind.MESSAGE, longer)


def test_largest_legal_append_entries_fits() -> None:
    """A full batch of the smallest commands, and one of the largest, each number as long as it can be."""

    def entry(data: bytes) -> Entry:
        return Entry(Term(NUMBER_MAX), EntryKind.COMMAND, NUMBER_MAX, data)

    smallest = entry(b"\x93\x03\xc4\x01b\x91\xc4\x01k")
    batch = (smallest,) * (RaftConfig(id=NodeId("a")).append_bytes_max // len(smallest.data))
    message = AppendEntries(
        term=Term(NUMBER_MAX),
        prev_log_index=Index(NUMBER_MAX),
        prev_log_term=Term(NUMBER_MAX),
        leader_commit=Index(NUMBER_MAX),
        round=NUMBER_MAX,
        entries=(*batch, entry(bytes(COMMAND_BYTES_MAX))),
    )
    reader = FrameReader(FRAME_BYTES_MAX)

    reader.feed(encode_frame(FrameKind.MESSAGE, encode_message(message)))

    frame = reader.next_frame()
    assert frame is not None
    assert decode_message(frame.payload) == message


def test_payload_that_no_peer_would_take_is_not_sent() -> None:
    """The mistake is this node's, so it is no FrameError."""
    with pytest.raises(ValueError, match=f"a frame of {FRAME_BYTES_MAX + 1} bytes: at most {FRAME_BYTES_MAX}"):
        encode_frame(FrameKind.MESSAGE, bytes(FRAME_BYTES_MAX + 1))
