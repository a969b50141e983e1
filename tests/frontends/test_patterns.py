"""Glob patterns: a plain definition checks the clever one."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from huton.frontends.patterns import compile_pattern

alphabet = st.sampled_from(b"ab-]^")
keys = st.lists(alphabet, max_size=8).map(bytes)
patterns = st.lists(st.sampled_from(b"ab*?[]^-\\"), max_size=8).map(bytes)


def plainly_matches(pattern: bytes, key: bytes) -> bool:
    """redis' stringmatchlen, as one reads it: try everything."""
    if not pattern:
        return not key
    first = pattern[:1]
    if first == b"*":
        return any(plainly_matches(pattern[1:], key[cut:]) for cut in range(len(key) + 1))
    if not key:
        return False
    if first == b"?":
        return plainly_matches(pattern[1:], key[1:])
    if first == b"[":
        found, rest = plainly_in_class(pattern[1:], key[0])
        return found and plainly_matches(rest, key[1:])
    if first == b"\\" and len(pattern) > 1:
        pattern = pattern[1:]
    return pattern[0] == key[0] and plainly_matches(pattern[1:], key[1:])


def plainly_in_class(rest: bytes, byte: int) -> tuple[bool, bytes]:
    negated = rest.startswith(b"^")
    if negated:
        rest = rest[1:]
    found = False
    while rest and not rest.startswith(b"]"):
        if rest.startswith(b"\\") and len(rest) > 1:
            found |= rest[1] == byte
            rest = rest[2:]
        elif len(rest) > 2 and rest[1:2] == b"-":
            found |= min(rest[0], rest[2]) <= byte <= max(rest[0], rest[2])
            rest = rest[3:]
        else:
            found |= rest[0] == byte
            rest = rest[1:]
    return found != negated, rest[1:]


@settings(max_examples=1_000)
@given(patterns, keys)
@example(b"a*a", b"a")
@example(b"[]a", b"a")
@example(b"[^]", b"a")
@example(b"[b-a", b"a")
@example(b"[a-]]", b"a")
@example(b"*[", b"a")
def test_patterns_match_what_redis_matches(pattern: bytes, key: bytes) -> None:
    """Every pattern that can be written means what trying everything finds."""
    compiled = compile_pattern(pattern)

    assert compiled.matches(key) == plainly_matches(pattern, key)
    if compiled.matches(key):
        assert key.startswith(compiled.prefix)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (b"user:*", [b"user:", b"user:\xff\n"], [b"users", b""]),
        (b"*:name", [b":name", b"a:b:name"], [b"a:names"]),
        (b"h?llo", [b"hello", b"h\nllo"], [b"hllo", b"heello"]),
        (b"h[ae]llo", [b"hallo"], [b"hillo"]),
        (b"h[^e]llo", [b"h^llo", b"hallo"], [b"hello"]),
        (b"h[a-b]llo", [b"hbllo"], [b"h-llo"]),
        (rb"a\*b", [b"a*b"], [b"aab"]),
        (b"a.c", [b"a.c"], [b"abc"]),
    ],
)
def test_patterns_mean_what_the_manual_says(pattern: bytes, matching: list[bytes], other: list[bytes]) -> None:
    """The examples of https://redis.io/docs/latest/commands/keys/, and bytes that are no text."""
    compiled = compile_pattern(pattern)

    assert [key for key in matching + other if compiled.matches(key)] == matching


@pytest.mark.parametrize(
    ("pattern", "prefix", "exact"),
    [
        (b"user:*", b"user:", False),
        (rb"a\*b?c", b"a*b", False),
        (b"[a]", b"", False),
        (b"abc", b"abc", True),
        (b"", b"", True),
    ],
)
def test_a_pattern_knows_what_every_match_starts_with(pattern: bytes, prefix: bytes, exact: bool) -> None:
    """A scan starts there instead of looking at all keys."""
    compiled = compile_pattern(pattern)

    assert (compiled.prefix, compiled.exact) == (prefix, exact)


def test_no_pattern_takes_the_lifetime_of_the_process() -> None:
    """CVE-2022-36021: a pattern with many stars against a long key stopped redis' only thread."""
    compiled = compile_pattern(b"a*" * 200 + b"b")
    started = time.process_time()

    assert not compiled.matches(b"a" * 400)
    assert time.process_time() - started < 1
