"""Records on disk: what is written comes back, and what was damaged or moved is never taken for good."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.errors import CorruptRecord
from huton.raft.types import Configuration, Entry, EntryKind, HardState, Index, Member, NodeId, Snapshot, Term
from huton.storage import layout
from huton.storage.interface import Birth, Identity

CLUSTER = bytes(range(16))
OWNER = layout.owner_checksum(CLUSTER)
VALUES = layout.value_checksum(OWNER)

U64 = st.integers(0, 2**64 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NODE_IDS = TEXTS.map(NodeId)
ENTRIES = st.builds(Entry, U64.map(Term), st.sampled_from(EntryKind), U64, st.binary(max_size=40))
HARD_STATES = st.builds(HardState, U64.map(Term), st.none() | NODE_IDS)
IDENTITIES = st.builds(Identity, TEXTS, st.binary(min_size=16, max_size=16))
MEMBERS = st.lists(st.builds(Member, NODE_IDS, TEXTS), max_size=4).map(tuple)
BIRTHS = st.builds(Birth, st.binary(min_size=16, max_size=16), st.builds(Configuration, MEMBERS))
METAS = st.builds(Snapshot, U64.map(Index), U64.map(Term), U64, st.builds(Configuration, MEMBERS))
KEYS = st.binary(min_size=1, max_size=20)


@attrs.frozen
class Form:
    """One kind of record."""

    values: st.SearchStrategy[object]
    encode: Callable[[bytes, object], bytes]
    decode: Callable[[bytes, bytes], object]


FORMS: dict[str, Form] = {
    "entry": Form(
        ENTRIES,
        lambda key, value: layout.encode_entry(OWNER, layout.entry_key(_index(key)), value),  # type: ignore[arg-type]
        lambda key, record: layout.decode_entry(OWNER, layout.entry_key(_index(key)), record),
    ),
    "hard state": Form(
        HARD_STATES,
        lambda _, value: layout.encode_hard_state(OWNER, value),  # type: ignore[arg-type]
        lambda _, record: layout.decode_hard_state(OWNER, record),
    ),
    "identity": Form(
        IDENTITIES,
        lambda _, value: layout.encode_identity(value),  # type: ignore[arg-type]
        lambda _, record: layout.decode_identity(record),
    ),
    "birth": Form(
        BIRTHS,
        lambda _, value: layout.encode_birth(OWNER, value),  # type: ignore[arg-type]
        lambda _, record: layout.decode_birth(OWNER, record),
    ),
    "pledge": Form(
        st.binary(max_size=40),
        lambda _, value: layout.encode_pledge(OWNER, value),  # type: ignore[arg-type]
        lambda _, record: layout.decode_pledge(OWNER, record),
    ),
    "checkpoint": Form(
        METAS,
        lambda _, value: layout.encode_checkpoint(OWNER, value),  # type: ignore[arg-type]
        lambda _, record: layout.decode_checkpoint(OWNER, record),
    ),
    "value": Form(
        st.binary(max_size=40),
        lambda key, value: layout.encode_value(VALUES, key, value),  # type: ignore[arg-type]
        lambda key, record: layout.decode_value(VALUES, key, record),
    ),
}
# Each form takes its own type; a table over all of them can only say "object".


def _index(key: bytes) -> Index:
    return Index(crc32(key))


every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@every_form
@given(data=st.data(), key=KEYS)
def test_what_is_written_comes_back(form: Form, data: st.DataObject, key: bytes) -> None:
    """decode(encode(value)) == value, for every kind of record."""
    value = data.draw(form.values)

    assert form.decode(key, form.encode(key, value)) == value


@every_form
@given(data=st.data(), key=KEYS)
def test_a_flipped_bit_in_any_byte_is_detected(form: Form, data: st.DataObject, key: bytes) -> None:
    """A CRC-32 finds every error of one bit; the version byte is told apart besides."""
    record = form.encode(key, data.draw(form.values))

    for position in range(len(record)):
        bit = 1 << data.draw(st.integers(0, 7)) if len(record) > 100 else 1 << (position % 8)
        damaged = record[:position] + bytes([record[position] ^ bit]) + record[position + 1 :]
        with pytest.raises(CorruptRecord):
            form.decode(key, damaged)


@every_form
@given(data=st.data(), key=KEYS)
def test_a_cut_or_lengthened_record_is_detected(form: Form, data: st.DataObject, key: bytes) -> None:
    """Bytes that are missing, or too many, fail the checksum as well."""
    record = form.encode(key, data.draw(form.values))

    with pytest.raises(CorruptRecord):
        form.decode(key, record[: data.draw(st.integers(0, len(record) - 1))])
    with pytest.raises(CorruptRecord):
        form.decode(key, record + b"\0")


@every_form
@given(record=st.binary(max_size=60), key=KEYS)
def test_decoders_take_any_bytes(form: Form, record: bytes, key: bytes) -> None:
    """Whatever lies on the disk, a decoder returns a value or raises CorruptRecord, and nothing else."""
    with suppress(CorruptRecord):
        form.decode(key, record)


@pytest.mark.parametrize(
    ("encode_key", "decode"),
    [
        (layout.HARD_STATE_KEY, layout.decode_hard_state),
        (layout.BIRTH_KEY, layout.decode_birth),
        (layout.CHECKPOINT_KEY, layout.decode_checkpoint),
        (layout.IDENTITY_KEY, lambda _, record: layout.decode_identity(record)),
    ],
    ids=["hard state", "birth", "checkpoint", "identity"],
)
@given(payload=st.binary(max_size=60))
def test_decoders_take_any_content_under_a_right_checksum(
    encode_key: bytes, decode: Callable[[int, bytes], object], payload: bytes
) -> None:
    """The checksum says who wrote it, not that it makes sense; the decoder still raises nothing else."""
    owner = layout.NOBODY if encode_key == layout.IDENTITY_KEY else OWNER
    checksum = crc32(payload, crc32(encode_key, crc32(b"\1", owner)))

    with suppress(CorruptRecord):
        decode(owner, b"\1" + checksum.to_bytes(4, "big") + payload)


@given(entry=ENTRIES, index=U64.map(Index), other=U64.map(Index))
def test_an_entry_is_bound_to_its_index_and_cluster(entry: Entry, index: Index, other: Index) -> None:
    """A misdirected page, or a file of another cluster, must not pass for ours."""
    record = layout.encode_entry(OWNER, layout.entry_key(index), entry)

    if other != index:
        with pytest.raises(CorruptRecord, match=f"entry {other}"):
            layout.decode_entry(OWNER, layout.entry_key(other), record)
    with pytest.raises(CorruptRecord, match=f"entry {index}"):
        layout.decode_entry(layout.owner_checksum(bytes(16)), layout.entry_key(index), record)


@given(value=st.binary(max_size=10), key=KEYS, other=KEYS)
def test_a_value_is_bound_to_its_key_and_cluster(value: bytes, key: bytes, other: bytes) -> None:
    """The same for the state."""
    record = layout.encode_value(VALUES, key, value)

    if other != key:
        with pytest.raises(CorruptRecord):
            layout.decode_value(VALUES, other, record)
    with pytest.raises(CorruptRecord):
        layout.decode_value(layout.value_checksum(layout.owner_checksum(bytes(16))), key, record)


@given(entry=ENTRIES, index=U64.map(Index))
def test_an_entry_header_is_read_without_the_data(entry: Entry, index: Index) -> None:
    """Recovery checks the terms of the whole log and leaves the data to whoever reads it."""
    key = layout.entry_key(index)
    record = layout.encode_entry(OWNER, key, entry)

    header = layout.decode_entry_header(OWNER, key, memoryview(record))

    assert header == layout.EntryHeader(entry.term, entry.kind, entry.stamp, len(entry.data))


@given(st.lists(U64.map(Index), max_size=10))
def test_entry_keys_sort_as_their_indexes_do(indexes: list[Index]) -> None:
    """LMDB orders keys byte by byte; a big-endian index in a fixed width keeps the log's order."""
    assert [layout.entry_index(key) for key in sorted(map(layout.entry_key, indexes))] == sorted(indexes)


def test_every_other_key_of_the_log_stands_before_the_entries() -> None:
    """Entries are appended at the right edge of the tree; so nothing may stand behind them."""
    others = [layout.BIRTH_KEY, layout.HARD_STATE_KEY, layout.IDENTITY_KEY, layout.PLEDGE_KEY]

    assert max(others) < layout.entry_key(Index(0))
    assert layout.entry_key(Index(2**64 - 1)) < layout.ENTRIES_STOP
    assert layout.CHECKPOINT_KEY < layout.STATE_PREFIX < layout.STATE_STOP


@pytest.mark.parametrize("key", [b"", b"e", b"e1234567", b"e123456789", b"x12345678"])
def test_a_key_without_meaning_is_corruption(key: bytes) -> None:
    """Never a guess."""
    with pytest.raises(CorruptRecord, match="no meaning"):
        layout.entry_index(key)


def test_records_are_the_bytes_that_the_docs_draw() -> None:
    """docs/formats.md: a change of any byte here is a new record version."""
    entry = Entry(Term(3), EntryKind.COMMAND, 5, b"data")
    key = layout.entry_key(Index(7))
    head = bytes.fromhex("01 01 0000000000000003 0000000000000005") + crc32(b"data").to_bytes(4, "big")
    checksum = crc32(CLUSTER + b"e" + (7).to_bytes(8, "big") + head).to_bytes(4, "big")
    record = layout.encode_entry(OWNER, key, entry)
    assert record == head + checksum + b"data"
    assert record.hex() in (Path(__file__).parents[2] / "docs" / "formats.md").read_text().replace(" ", "")

    checksum = crc32(CLUSTER + b"\1" + b"skey" + b"value").to_bytes(4, "big")
    assert layout.encode_value(VALUES, b"key", b"value") == b"\1" + checksum + b"value"

    payload = (9).to_bytes(8, "big") + b"\1" + b"n1"
    checksum = crc32(CLUSTER + b"\1" + b"H" + payload).to_bytes(4, "big")
    assert layout.encode_hard_state(OWNER, HardState(Term(9), NodeId("n1"))) == b"\1" + checksum + payload


def test_ids_of_a_wrong_length_are_refused() -> None:
    """A caller's mistake is told at once, not found on the disk later."""
    with pytest.raises(ValueError, match="16 bytes"):
        layout.owner_checksum(b"short")
    with pytest.raises(ValueError, match="16 bytes"):
        layout.encode_identity(Identity("n1", b"short"))
    with pytest.raises(ValueError, match="16 bytes"):
        layout.encode_birth(OWNER, Birth(b"short", Configuration(())))
