"""The commands as bytes, and the limits they keep."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.errors import CommandFailed, InvalidRequest, RemoteError
from huton.kv.commands import (
    BAD_COMMAND,
    COMMAND_BYTES_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    KEYS_MAX,
    VALUE_BYTES_MAX,
    Answer,
    Command,
    CompareAndSet,
    Delete,
    Deleted,
    Increment,
    Incremented,
    Revised,
    Set,
    SetMany,
    check_amount,
    check_bucket_name,
    check_items,
    check_key,
    check_keys,
    check_only_if,
    check_range,
    check_revision,
    check_value,
    decode_answer,
    decode_command,
    encode_answer,
    encode_command,
)

names = st.binary(min_size=1, max_size=64)
keys = st.binary(min_size=1, max_size=400)
values = st.binary(max_size=100)
integers = st.integers(INTEGER_MIN, INTEGER_MAX)
revisions = st.integers(0, INTEGER_MAX)

commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Set, names, keys, values, st.sampled_from(("absent", "present", None))),
    st.builds(SetMany, names, st.lists(st.tuples(keys, values), min_size=1, max_size=5).map(tuple)),
    st.builds(Delete, names, st.lists(keys, min_size=1, max_size=5).map(tuple)),
    st.builds(CompareAndSet, names, keys, values, revisions),
    st.builds(Increment, names, keys, integers),
)
answers: st.SearchStrategy[Answer] = st.one_of(
    st.builds(Revised, revisions), st.builds(Deleted, revisions), st.builds(Incremented, integers)
)


@given(commands)
def test_command_survives_its_bytes(command: Command) -> None:
    """What was proposed is what is applied."""
    assert decode_command(encode_command(command)) == command


@given(answers)
def test_answer_survives_its_bytes(answer: Answer) -> None:
    """What the machine answered is what the caller gets."""
    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    ("command", "data"),
    [
        (Set(b"b", b"k", b""), "95 01 c40162 c4016b c400 c0"),
        (Set(b"b", b"k", b"v", "absent"), "95 01 c40162 c4016b c40176 a6616273656e74"),
        (SetMany(b"b", ((b"k", b"v"),)), "93 02 c40162 91 92 c4016b c40176"),
        (Delete(b"b", (b"k", b"l")), "93 03 c40162 92 c4016b c4016c"),
        (CompareAndSet(b"b", b"k", b"v", 300), "95 04 c40162 c4016b c40176 cd012c"),
        (Increment(b"b", b"k", -1), "94 05 c40162 c4016b ff"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bytes_of_commands_are_frozen(command: Command, data: str) -> None:
    """Commands stay in logs: docs/formats.md, "Commands and answers", may gain rows and change none."""
    assert encode_command(command).hex() == data.replace(" ", "")


@pytest.mark.parametrize(
    ("answer", "data"),
    [(Revised(7), "92 01 07"), (Deleted(0), "92 02 00"), (Incremented(-128), "92 03 d080")],
    ids=lambda value: type(value).__name__,
)
def test_bytes_of_answers_are_frozen(answer: Answer, data: str) -> None:
    """Nodes of different versions understand each other's answers."""
    assert encode_answer(answer).hex() == data.replace(" ", "")


def packed(*parts: object) -> bytes:
    return msgspec.msgpack.encode(parts)


BROKEN_COMMANDS = {
    "nothing": b"",
    "no array": msgspec.msgpack.encode(1),
    "unknown tag": packed(99, b"b", b"k", b"v", None),
    "no tag": packed(),
    "field missing": packed(1, b"b", b"k"),
    "field too many": packed(1, b"b", b"k", b"v", None, 1),
    "bytes after the end": packed(1, b"b", b"k", b"v", None) + b"\x00",
    "text for bytes": packed(1, b"b", "k", b"v", None),
    "empty bucket name": packed(1, b"", b"k", b"v", None),
    "long bucket name": packed(1, b"b" * 65, b"k", b"v", None),
    "empty key": packed(1, b"b", b"", b"v", None),
    "long key": packed(1, b"b", b"k" * 401, b"v", None),
    "unknown condition": packed(1, b"b", b"k", b"v", "sometimes"),
    "condition that is no UTF-8": b"\x95\x01\xc4\x01b\xc4\x01k\xc4\x01v\xa1\xff",
    "no items": packed(2, b"b", ()),
    "too many items": packed(2, b"b", [(b"%d" % number, b"") for number in range(KEYS_MAX + 1)]),
    "no keys": packed(3, b"b", ()),
    "empty key among many": packed(3, b"b", (b"k", b"")),
    "too many keys": packed(3, b"b", [b"k"] * (KEYS_MAX + 1)),
    "negative revision": packed(4, b"b", b"k", b"v", -1),
    "amount beyond 64 bits": packed(5, b"b", b"k", INTEGER_MAX + 1),
    "longer than a command may be": packed(1, b"b", b"k", b"v" * COMMAND_BYTES_MAX, None),
    "arrays without end": b"\x91" * 100_000,
    "an array of 4 billion": b"\xdd\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("data", BROKEN_COMMANDS.values(), ids=BROKEN_COMMANDS.keys())
def test_broken_command_fails_alike_everywhere(data: bytes) -> None:
    """The limits hold again at decoding, because the log may have been written by anybody."""
    with pytest.raises(CommandFailed) as caught:
        decode_command(data)

    assert caught.value.code == BAD_COMMAND


@given(
    st.binary(max_size=200)
    | commands.map(encode_command).flatmap(lambda data: st.integers(0, len(data)).map(lambda end: data[:end]))
)
def test_any_bytes_are_a_command_or_fail_as_one(data: bytes) -> None:
    """Nothing but CommandFailed comes out of decoding: anything else would stop the node."""
    try:
        decode_command(data)
    except CommandFailed as error:
        code = error.code
    else:
        return
    assert code == BAD_COMMAND


@given(st.binary(max_size=50))
def test_any_bytes_are_an_answer_or_a_remote_error(data: bytes) -> None:
    """An answer comes from another node, which may be wrong."""
    with suppress(RemoteError):
        decode_answer(data)


def test_limits_are_inclusive() -> None:
    """The longest and the shortest of everything is taken, as it is."""
    assert check_bucket_name("b") == b"b"
    assert check_bucket_name("ü" * 32) == "ü".encode() * 32
    assert check_bucket_name(b"\xff" * 64) == b"\xff" * 64
    assert check_key(b"k") == b"k"
    assert check_key(b"k" * 400) == b"k" * 400
    assert check_value(b"") == b""
    assert check_value(bytes(VALUE_BYTES_MAX)) == bytes(VALUE_BYTES_MAX)
    assert check_value(b"12", 2) == b"12"
    assert check_keys([b"k"] * KEYS_MAX) == (b"k",) * KEYS_MAX
    assert check_items({b"k": b""}) == ((b"k", b""),)
    assert check_only_if(None) is None
    assert check_only_if("absent") == "absent"
    assert check_only_if("present") == "present"
    assert check_revision(0) == 0
    assert check_revision(INTEGER_MAX) == INTEGER_MAX
    assert check_amount(INTEGER_MIN) == INTEGER_MIN
    check_range(b"", b"", b"", 0)
    check_range(b"p" * 401, b"p" * 401, b"p" * 401, 1)
    check_range(b"", None, None, None)


@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        (lambda: check_bucket_name(""), "a bucket name of 0 bytes: 1 to 64"),
        (lambda: check_bucket_name("ü" * 33), "a bucket name of 66 bytes: 1 to 64"),
        (lambda: check_bucket_name("\udc80"), "a bucket name that is no Unicode text"),
        (lambda: check_bucket_name(3), "a bucket name of type int: it must be bytes"),  # type: ignore[arg-type]  # on purpose
        (lambda: check_key(b""), "a key of 0 bytes: 1 to 400"),
        (lambda: check_key(b"k" * 401), "a key of 401 bytes: 1 to 400"),
        (lambda: check_key("k"), "a key of type str: it must be bytes"),  # type: ignore[arg-type]  # on purpose
        (lambda: check_value(bytes(VALUE_BYTES_MAX + 1)), "a value of 1048577 bytes: at most 1048576"),
        (lambda: check_value(b"123", 2), "a value of 3 bytes: at most 2"),
        (lambda: check_value(None), "a value of type NoneType: it must be bytes"),  # type: ignore[arg-type]  # on purpose
        (lambda: check_keys([]), "0 keys in one request: 1 to 10000"),
        (lambda: check_keys([b"k"] * (KEYS_MAX + 1)), "10001 keys in one request"),
        (lambda: check_keys([b"k", b""]), "a key of 0 bytes"),
        (lambda: check_items({}), "0 keys in one request"),
        (lambda: check_items({b"%d" % number: b"" for number in range(KEYS_MAX + 1)}), "10001 keys in one request"),
        (lambda: check_items({b"": b""}), "a key of 0 bytes"),
        (lambda: check_items({b"k": b"123"}, 2), "a value of 3 bytes: at most 2"),
        (lambda: check_only_if("never"), "only_if is 'never': 'absent', 'present' or None"),  # type: ignore[arg-type]  # on purpose
        (lambda: check_revision(-1), "revision is -1: 0 to"),
        (lambda: check_revision(True), "revision is True: it must be an integer"),
        (lambda: check_amount(INTEGER_MAX + 1), "amount is 9223372036854775808"),
        (lambda: check_amount(1.0), "amount is 1.0: it must be an integer"),  # type: ignore[arg-type]  # on purpose
        (lambda: check_range(b"p" * 402, None, None, None), "a prefix of 402 bytes: at most 401"),
        (lambda: check_range(b"", b"p" * 402, None, None), "a start of 402 bytes: at most 401"),
        (lambda: check_range(b"", None, b"p" * 402, None), "a stop of 402 bytes: at most 401"),
        (lambda: check_range(b"", None, None, -1), "limit is -1: 0 to"),
    ],
)
def test_what_breaks_a_limit_is_named(check: Callable[[], object], complaint: str) -> None:
    """InvalidRequest: "a name, key, value or argument breaks a limit: mend the call"."""
    with pytest.raises(InvalidRequest) as caught:
        check()

    assert complaint in str(caught.value)


def test_longest_command_is_refused_before_it_is_proposed() -> None:
    """Its parts may keep their limits and the whole still be too long for a frame."""
    room = COMMAND_BYTES_MAX - len(encode_command(Set(b"b", b"k", bytes(1 << 16)))) + (1 << 16)

    assert len(encode_command(Set(b"b", b"k", bytes(room)))) == COMMAND_BYTES_MAX
    with pytest.raises(
        InvalidRequest, match=f"a command of {COMMAND_BYTES_MAX + 1} bytes: at most {COMMAND_BYTES_MAX}"
    ):
        encode_command(Set(b"b", b"k", bytes(room + 1)))
