"""Every class that travels: as bytes and back, and what happens to bytes that are none of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.errors import FrameError
from huton.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from huton.raft.types import Entry, EntryKind, Index, Member, NodeId, RequestId, Term
from huton.wire import (
    BirthAborted,
    BirthDecided,
    BirthElsewhere,
    BirthMessage,
    BirthNotice,
    BirthProposal,
    ForwardReads,
    ForwardWrites,
    Hello,
    Outcome,
    OutcomeStatus,
    PeerMessage,
    ReadAnswers,
    Refusal,
    RefusalReason,
    WriteAnswers,
    decode_birth,
    decode_handshake,
    decode_message,
    encode_birth,
    encode_handshake,
    encode_message,
)

numbers = st.integers(0, 200) | st.integers(0, (1 << 64) - 1)
terms = numbers.map(Term)
indexes = numbers.map(Index)
request_ids = numbers.map(RequestId)
ids16 = st.binary(min_size=16, max_size=16)
node_ids = st.builds(
    lambda name, incarnation: NodeId(f"{name}#{incarnation.hex()}"),
    st.text("abcXYZ019._-", min_size=1, max_size=64),
    ids16,
)
addresses = st.sampled_from(("127.0.0.1:7420", "[::1]:1", "node-1.example:65535"))
members = st.builds(Member, node_ids, addresses)
entries = st.builds(Entry, terms, st.sampled_from(EntryKind), numbers, st.binary(max_size=40))
outcomes = st.builds(
    Outcome, st.sampled_from(OutcomeStatus), st.binary(max_size=20), st.text(max_size=9), st.text(max_size=9)
)


def tuples_of(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=4).map(tuple)


CLASSES: dict[type[Any], st.SearchStrategy[Any]] = {
    Hello: st.builds(
        Hello,
        version_min=st.integers(0, 65_535),
        version_max=st.integers(0, 65_535),
        cluster_id=st.none() | ids16,
        node=node_ids,
        expected=st.none() | node_ids,
        address=addresses,
    ),
    Refusal: st.builds(Refusal, st.sampled_from(RefusalReason), st.text(max_size=50)),
    PreVote: st.builds(PreVote, term=terms, last_log_index=indexes, last_log_term=terms),
    PreVoteReply: st.builds(PreVoteReply, term=terms, granted=st.booleans()),
    RequestVote: st.builds(RequestVote, term=terms, last_log_index=indexes, last_log_term=terms),
    RequestVoteReply: st.builds(RequestVoteReply, term=terms, granted=st.booleans()),
    AppendEntries: st.builds(
        AppendEntries,
        term=terms,
        prev_log_index=indexes,
        prev_log_term=terms,
        leader_commit=indexes,
        round=numbers,
        entries=tuples_of(entries),
    ),
    AppendEntriesReply: st.builds(
        AppendEntriesReply,
        term=terms,
        round=numbers,
        success=st.booleans(),
        index=indexes,
        hint_index=indexes,
        hint_term=terms,
    ),
    ForwardWrites: st.builds(
        ForwardWrites,
        term=terms,
        epoch=numbers,
        requests=tuples_of(st.tuples(request_ids, st.binary(max_size=20))),
    ),
    WriteAnswers: st.builds(WriteAnswers, epoch=numbers, answers=tuples_of(st.tuples(request_ids, outcomes))),
    ForwardReads: st.builds(ForwardReads, epoch=numbers, requests=tuples_of(request_ids)),
    ReadAnswers: st.builds(ReadAnswers, epoch=numbers, answers=tuples_of(st.tuples(request_ids, st.none() | indexes))),
    BirthNotice: st.builds(
        BirthNotice,
        member=members,
        expect=st.integers(1, 9),
        known=tuples_of(members),
        pledged=st.none() | ids16,
        proposer=st.none() | node_ids,
    ),
    BirthProposal: st.builds(BirthProposal, cluster_id=ids16, proposer=node_ids, members=tuples_of(members)),
    BirthAborted: st.builds(BirthAborted, cluster_id=ids16),
    BirthDecided: st.builds(BirthDecided, cluster_id=ids16, members=tuples_of(members)),
    BirthElsewhere: st.builds(BirthElsewhere, cluster_id=ids16),
}
"""Every class that has bytes of its own, and how to make one."""

values = st.one_of(*CLASSES.values())

CODECS: dict[Any, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    Hello | Refusal: (encode_handshake, decode_handshake),
    PeerMessage: (encode_message, decode_message),
    BirthMessage: (encode_birth, decode_birth),
}


def codec_of(cls: type[Any]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    return next(codec for union, codec in CODECS.items() if cls in get_args(union))


def refused(decode: Callable[[bytes], Any], data: bytes) -> bool:
    """Return whether *data* is refused; any other exception fails the test."""
    try:
        decode(data)
    except FrameError:
        return True
    return False


def test_every_class_that_travels_is_tested_here() -> None:
    """A class that is added to one of the unions gets a strategy above."""
    assert set(CLASSES) == {cls for union in CODECS for cls in get_args(union)}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_value_survives_its_bytes(cls: type[Any]) -> None:
    """What arrives is what was sent, to the type."""
    encode, decode = codec_of(cls)

    @given(CLASSES[cls])
    def check(value: object) -> None:
        assert decode(encode(value)) == value

    check()


def test_entry_data_travels_as_it_is() -> None:
    """Entry.data: "encoded once: the same bytes on wire and disk"."""
    data = bytes(range(256))
    entry = Entry(Term(1), EntryKind.COMMAND, 5, data)
    message = AppendEntries(
        term=Term(1),
        prev_log_index=Index(0),
        prev_log_term=Term(0),
        leader_commit=Index(0),
        round=0,
        entries=(entry,),
    )

    assert data in encode_message(message)
    arrived = decode_message(encode_message(message))
    assert isinstance(arrived, AppendEntries)
    assert (type(arrived.entries), type(arrived.entries[0]), type(arrived.entries[0].kind)) == (tuple, Entry, EntryKind)
    assert type(arrived.entries[0].data) is bytes


MEMBER = Member(NodeId("a#" + "00" * 16), "h:1")
WRONG_NUMBERS: tuple[object, ...] = (-1, -(1 << 63), "1", 1.5, True, [], {})
FROZEN: list[tuple[object, int, dict[str, object]]] = [
    (
        Hello(cluster_id=None, node=MEMBER.id, expected=None, address="h:1"),
        1,
        {
            "version_min": 1,
            "version_max": 1,
            "cluster_id": None,
            "node": MEMBER.id,
            "expected": None,
            "address": "h:1",
        },
    ),
    (Refusal(RefusalReason.NAME_TAKEN, "no"), 2, {"reason": 3, "message": "no"}),
    (
        PreVote(term=Term(1), last_log_index=Index(2), last_log_term=Term(3)),
        1,
        {"term": 1, "last_log_index": 2, "last_log_term": 3},
    ),
    (PreVoteReply(term=Term(1), granted=True), 2, {"term": 1, "granted": True}),
    (
        RequestVote(term=Term(1), last_log_index=Index(2), last_log_term=Term(3)),
        3,
        {"term": 1, "last_log_index": 2, "last_log_term": 3},
    ),
    (RequestVoteReply(term=Term(1), granted=False), 4, {"term": 1, "granted": False}),
    (
        AppendEntries(
            term=Term(1),
            prev_log_index=Index(2),
            prev_log_term=Term(3),
            leader_commit=Index(4),
            round=5,
            entries=(Entry(Term(6), EntryKind.COMMAND, 7, b"8"),),
        ),
        5,
        {
            "term": 1,
            "prev_log_index": 2,
            "prev_log_term": 3,
            "leader_commit": 4,
            "round": 5,
            "entries": [{"term": 6, "kind": 1, "stamp": 7, "data": b"8"}],
        },
    ),
    (
        AppendEntriesReply(term=Term(1), round=2, success=True, index=Index(3), hint_index=Index(4), hint_term=Term(5)),
        6,
        {"term": 1, "round": 2, "success": True, "index": 3, "hint_index": 4, "hint_term": 5},
    ),
    (
        ForwardWrites(term=Term(1), epoch=2, requests=((RequestId(3), b"4"),)),
        7,
        {"term": 1, "epoch": 2, "requests": [[3, b"4"]]},
    ),
    (
        WriteAnswers(epoch=2, answers=((RequestId(3), Outcome(OutcomeStatus.FAILED, b"4", "5", "6")),)),
        8,
        {"epoch": 2, "answers": [[3, {"status": 1, "data": b"4", "code": "5", "message": "6"}]]},
    ),
    (ForwardReads(epoch=1, requests=(RequestId(2),)), 9, {"epoch": 1, "requests": [2]}),
    (
        ReadAnswers(epoch=1, answers=((RequestId(2), Index(3)), (RequestId(4), None))),
        10,
        {"epoch": 1, "answers": [[2, 3], [4, None]]},
    ),
    (
        BirthNotice(member=MEMBER, expect=3, known=(MEMBER,), pledged=bytes(16), proposer=MEMBER.id),
        1,
        {
            "member": {"id": MEMBER.id, "address": "h:1"},
            "expect": 3,
            "known": [{"id": MEMBER.id, "address": "h:1"}],
            "pledged": bytes(16),
            "proposer": MEMBER.id,
        },
    ),
    (
        BirthProposal(cluster_id=bytes(16), proposer=MEMBER.id, members=(MEMBER,)),
        2,
        {"cluster_id": bytes(16), "proposer": MEMBER.id, "members": [{"id": MEMBER.id, "address": "h:1"}]},
    ),
    (BirthAborted(cluster_id=bytes(16)), 3, {"cluster_id": bytes(16)}),
    (
        BirthDecided(cluster_id=bytes(16), members=(MEMBER,)),
        4,
        {"cluster_id": bytes(16), "members": [{"id": MEMBER.id, "address": "h:1"}]},
    ),
    (BirthElsewhere(cluster_id=bytes(16)), 5, {"cluster_id": bytes(16)}),
]
"""A value of every class, its type byte, and what a reader that knows only msgpack sees."""


def test_every_class_that_travels_is_frozen_here() -> None:
    """A class that is added gets a line above."""
    assert {type(value) for value, _, _ in FROZEN} == set(CLASSES)


@pytest.mark.parametrize(
    ("value", "type_byte", "fields"),
    FROZEN,
    ids=lambda value: type(value).__name__,
)
def test_bytes_of_values_are_frozen(value: object, type_byte: int, fields: dict[str, object]) -> None:
    """A field that is renamed in the code would no longer be understood by the other nodes: this test says so."""
    encode, _ = codec_of(type(value))
    data = encode(value)

    assert data[0] == type_byte
    assert msgspec.msgpack.decode(data[1:]) == fields


@given(st.binary(max_size=80), st.integers(0, 12))
def test_random_bytes_are_refused_or_understood(noise: bytes, type_byte: int) -> None:
    """Nothing but FrameError comes out of decoding, whatever the bytes."""
    for _, decode in CODECS.values():
        refused(decode, noise)
        refused(decode, bytes((type_byte,)) + noise)


@given(values, st.data())
def test_cut_values_are_refused(value: object, data: st.DataObject) -> None:
    """No value is the beginning of another."""
    encode, decode = codec_of(type(value))
    whole = encode(value)

    assert refused(decode, whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert refused(decode, whole + b"\xc0")


@given(values, st.data())
def test_mutated_values_are_refused_or_understood(value: object, data: st.DataObject) -> None:
    """A wrong type, number or length somewhere inside gives FrameError, or another legal value."""
    encode, decode = codec_of(type(value))
    mutated = bytearray(encode(value))
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(mutated) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    ):
        mutated[position] = byte

    refused(decode, bytes(mutated))


def numbers_inside(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all numbers in a decoded value."""
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in numbers_inside(item, (*path, key))]
    if isinstance(value, list):
        return [place for position, item in enumerate(value) for place in numbers_inside(item, (*path, position))]
    return [path] if isinstance(value, int) and not isinstance(value, bool) else []


@pytest.mark.parametrize(("value", "type_byte", "fields"), FROZEN, ids=lambda value: type(value).__name__)
def test_wrong_number_anywhere_is_refused(value: object, type_byte: int, fields: dict[str, Any]) -> None:
    """No number of ours is negative: nobody below needs to fear one."""
    _, decode = codec_of(type(value))

    for *outer, last in numbers_inside(fields):
        for wrong in WRONG_NUMBERS:
            broken = copy.deepcopy(fields)
            inner: Any = broken
            for step in outer:
                inner = inner[step]
            inner[last] = wrong
            assert refused(decode, bytes((type_byte,)) + msgspec.msgpack.encode(broken)), (outer, last, wrong)


@pytest.mark.parametrize(
    "value",
    [
        Refusal(RefusalReason.VERSION, "text"),
        WriteAnswers(epoch=2, answers=((RequestId(3), Outcome(OutcomeStatus.FAILED, code="text")),)),
        BirthDecided(cluster_id=bytes(16), members=(Member(MEMBER.id, "text"),)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_that_is_no_utf_8_is_refused(value: object) -> None:
    """msgspec raises UnicodeDecodeError for it, which is no error of its own."""
    encode, decode = codec_of(type(value))

    assert refused(decode, encode(value).replace(b"text", b"te\xfft"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff\x80",
        b"\x05",
        b"\x05\x80",
        b"\x05" + b"\x91" * 100_000,
        b"\x05" + b"\x81\xa1x" * 100_000,
        b"\x05\x81\xa1x" + b"\x91" * 100_000,
        b"\x09\x82\xa5epoch\x01\xa8requests\xdd\xff\xff\xff\xff\x01",
        b"\x05\x81\xa2\xff\xfe\x01",
        b"\x05\xdf\xff\xff\xff\xff",
        b"\x05\xc7\x04\xff\x00\x00\x00\x00",
    ],
    ids=["nothing", "zero", "unknown", "no fields", "empty", "arrays", "maps", "skipped", "4e9", "utf8", "big", "ext"],
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    """Deep nesting, claimed sizes without bytes, text that is no UTF-8: FrameError, at once and in little memory."""
    for _, decode in CODECS.values():
        assert refused(decode, data)
