"""HTTP requests without I/O: targets, queries and preconditions."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton import errors
from huton.frontends.http_messages import Preconditions, Problem, preconditions, problem_of, split_target
from huton.frontends.http_routes import find_route, get_key, get_keys, put_key


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=400))
def test_every_bucket_and_key_has_a_path(bucket: bytes, key: bytes) -> None:
    """Names are bytes: whatever they are, percent-encoding carries them."""
    target = f"/v1/buckets/{quote(bucket, safe='')}/keys/{quote(key, safe='')}".encode()

    method, names, query = find_route(b"GET", target)
    query.end()

    assert (method, names) == (get_key, (bucket, key))


@given(st.binary(max_size=60).map(lambda noise: b"/" + noise))
def test_random_targets_never_crash_the_router(target: bytes) -> None:
    """A target is a resource or a problem."""
    try:
        find_route(b"GET", target)
    except Problem as problem:
        assert problem.status in (400, 404, 405)


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        (b"GET", b"/", 404, "no-such-resource"),
        (b"GET", b"/v1/buckets/b/keys/a/b", 404, "no-such-resource"),
        (b"GET", b"/v1/status/", 404, "no-such-resource"),
        (b"POST", b"/v1/buckets/b/keys/k", 405, "method-not-allowed"),
        (b"PUT", b"/v1/status", 405, "method-not-allowed"),
        (b"OPTIONS", b"*", 400, "bad-target"),
        (b"GET", b"/v1/buckets/b/keys/%4", 400, "bad-target"),
        (b"GET", b"/v1/status?a=%zz", 400, "bad-target"),
        (b"GET", b"/v1/status?a=1&a=2", 400, "bad-query"),
    ],
)
def test_what_is_no_resource_is_a_problem(method: bytes, target: bytes, status: int, code: str) -> None:
    """Clients are told what is wrong, and 405 says what is right."""
    with pytest.raises(Problem) as caught:
        find_route(method, target)

    assert (caught.value.status, caught.value.code) == (status, code)
    if status == 405:
        assert b"HEAD" in dict(caught.value.headers)[b"Allow"]


def test_a_target_may_be_absolute() -> None:
    """RFC 9112 §3.2.2: 'a server MUST accept the absolute-form in requests'."""
    assert find_route(b"PUT", b"http://[::1]:7422/v1/buckets/b/keys/k")[:2] == (put_key, (b"b", b"k"))


def test_slashes_split_before_percent_signs_are_decoded() -> None:
    """``%2F`` is a byte of a name; a name that looks like a path stays a name."""
    assert split_target(b"/v1/a%2Fb/%2E%2E/%252F")[0] == (b"v1", b"a/b", b"..", b"%2F")


def test_a_query_is_taken_apart_as_forms_are() -> None:
    """``+`` is a space, ``%2B`` a plus; what isn't given is None or the default."""
    method, _, query = find_route(b"GET", b"/v1/buckets/b/keys?prefix=a+b%2B&start=&reverse=true&limit=7&")

    assert method is get_keys
    assert (query.octets("prefix"), query.octets("start"), query.octets("stop")) == (b"a b+", b"", None)
    assert (query.flag("reverse"), query.flag("local")) == (True, False)
    assert query.number("limit", default=1, most=10) == 7
    query.end()


@pytest.mark.parametrize("text", [b"reverse=yes", b"limit=0", b"limit=11", b"limit=-1", b"limit=", b"prefx=a"])
def test_a_query_that_makes_no_sense_is_refused(text: bytes) -> None:
    """A misspelt parameter is not ignored: it might have narrowed what is read."""
    _, query = split_target(b"/?" + text)

    with pytest.raises(Problem) as caught:
        _ = query.flag("reverse"), query.number("limit", default=1, most=10)
        query.end()

    assert (caught.value.status, caught.value.code) == (400, "bad-query")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Preconditions(None, None)),
        ([(b"if-match", b'"42"')], Preconditions(42, None)),
        ([(b"if-match", b"42")], Preconditions(42, None)),
        ([(b"if-match", b"*"), (b"host", b"h")], Preconditions("*", None)),
        ([(b"if-none-match", b"*")], Preconditions(None, "*")),
    ],
)
def test_preconditions_are_revisions(headers: list[tuple[bytes, bytes]], expected: Preconditions) -> None:
    """RFC 9110 §13.1: 'If-Match' and 'If-None-Match' take entity tags, or a star."""
    assert preconditions(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [(b"if-match", b'"1", "2"')],
        [(b"if-match", b'W/"1"')],
        [(b"if-match", b"")],
        [(b"if-match", b'"1"'), (b"if-match", b'"1"')],
        [(b"if-unmodified-since", b"Sat, 29 Oct 1994 19:43:31 GMT")],
    ],
)
def test_a_precondition_that_is_not_understood_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    """To ignore one would be to write what the client did not want written."""
    with pytest.raises(Problem) as caught:
        preconditions(headers)

    assert (caught.value.status, caught.value.code) == (400, "bad-precondition")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NoLeader("m"), 503, "no-leader"),
        (errors.Overloaded("m"), 503, "overloaded"),
        (errors.OutcomeUnknown("m"), 504, "outcome-unknown"),
        (errors.InvalidRequest("m"), 400, "invalid-request"),
        (errors.CompareFailed("m"), 412, "compare-failed"),
        (errors.NotAnInteger("m"), 409, "not-an-integer"),
    ],
)
def test_errors_say_what_happened(error: errors.RequestError, status: int, code: str) -> None:
    """503 is safe to try again, and says when; 504 says that nobody knows."""
    problem = problem_of(error)
    response = problem.response()

    assert response.status == status
    assert json.loads(response.body) == {"error": code, "message": "m"}
    assert (b"Retry-After" in dict(response.headers)) == (status == 503)
