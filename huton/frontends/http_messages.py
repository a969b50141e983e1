"""HTTP requests and responses as values, and what is wrong with a request, without I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import attrs
import msgspec

from huton.errors import (
    CommandFailed,
    CompareFailed,
    InvalidRequest,
    NoLeader,
    OutcomeUnknown,
    Overloaded,
    RequestError,
    StorageFull,
)

__all__ = [
    "Preconditions",
    "Problem",
    "Query",
    "Response",
    "json_response",
    "preconditions",
    "problem_of",
    "split_target",
]

_KINDS: Final[tuple[tuple[type[RequestError], int, str], ...]] = (
    # 503 says that nothing was written and that it is safe to try again; 504 says that nobody knows.
    (NoLeader, 503, "no-leader"),
    (Overloaded, 503, "overloaded"),
    (StorageFull, 507, "storage-full"),
    (OutcomeUnknown, 504, "outcome-unknown"),
    (CompareFailed, 412, "compare-failed"),
    (InvalidRequest, 400, "invalid-request"),
)

RETRY_AFTER: Final = b"1"
"""Seconds after which a client may try again what was answered with 503."""


@attrs.frozen
class Response:
    """What a client gets.

    Attributes:
        headers: besides those that frame the body.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


class Problem(Exception):
    """A request that gets an error response.

    Attributes:
        status: HTTP's number.
        code: a stable word for programs.
    """

    def __init__(self, status: int, code: str, message: str, *, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = tuple(headers)

    def response(self) -> Response:
        """Return the response: ``{"error": code, "message": text}``."""
        return json_response(self.status, {"error": self.code, "message": str(self)}, self.headers)


def problem_of(error: RequestError) -> Problem:
    """Return what an HTTP client is told of *error*."""
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            headers = ((b"Retry-After", RETRY_AFTER),) if status == 503 else ()
            return Problem(status, code, str(error), headers=headers)
    if isinstance(error, CommandFailed):
        return Problem(409, error.code, str(error))
    return Problem(400, "invalid-request", str(error))


def json_response(status: int, content: object, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """Return *content* as a JSON response that ends with a line break."""
    body = msgspec.json.encode(content) + b"\n"
    return Response(status, ((b"Content-Type", b"application/json"), *headers), body)


# ----------------------------------------------------------------- the target

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ORIGIN: Final = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


def split_target(target: bytes) -> tuple[tuple[bytes, ...], Query]:
    """Return (the path's decoded segments, the query) of a request target.

    Segments are split before they are decoded: ``a%2Fb`` is one segment, ``a/b``.

    Raises:
        Problem: it is malformed.
    """
    origin = _ORIGIN.match(target)
    if origin is not None:
        # RFC 9112 §3.2.2: "a server MUST accept the absolute-form in requests".
        target = target[origin.end() :] or b"/"
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/"):
        raise Problem(400, "bad-target", "the request target is no path")
    return tuple(_unquote(segment) for segment in path[1:].split(b"/")), _split_query(query)


def _unquote(text: bytes) -> bytes:
    if _BAD_ESCAPE.search(text):
        raise Problem(400, "bad-target", "a percent sign in the request target isn't followed by two hex digits")
    return unquote_to_bytes(text)


def _split_query(text: bytes) -> Query:
    parameters: dict[str, bytes] = {}
    for part in text.split(b"&"):
        if not part:
            continue
        name, _, argument = part.replace(b"+", b" ").partition(b"=")
        key = _unquote(name).decode("utf-8", "backslashreplace")
        if key in parameters:
            raise Problem(400, "bad-query", f"the parameter {key} is given twice")
        parameters[key] = _unquote(argument)
    return Query(parameters)


class Query:
    """The parameters of a request. Each is taken once; what nobody took is an error of the client."""

    def __init__(self, parameters: Mapping[str, bytes]) -> None:
        self._left = dict(parameters)

    def octets(self, name: str) -> bytes | None:
        """Return the decoded bytes of a parameter; None if it isn't given."""
        return self._left.pop(name, None)

    def flag(self, name: str) -> bool:
        """Return a parameter that is ``true`` or ``false``; not given, it is false."""
        text = self.octets(name)
        if text not in (None, b"true", b"false"):
            raise Problem(400, "bad-query", f"the parameter {name} is neither true nor false")
        return text == b"true"

    def number(self, name: str, *, default: int, most: int) -> int:
        """Return a parameter from 1 to *most*."""
        text = self.octets(name)
        if text is None:
            return default
        if not re.fullmatch(rb"[0-9]{1,18}", text) or not 1 <= int(text) <= most:
            raise Problem(400, "bad-query", f"the parameter {name} is no number from 1 to {most}")
        return int(text)

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            Problem: a parameter was given that this resource doesn't have.
        """
        if self._left:
            raise Problem(400, "bad-query", f"there is no parameter {next(iter(self._left))} here")


# --------------------------------------------------------------- preconditions

_TAG: Final = re.compile(rb'"([0-9]{1,18})"|([0-9]{1,18})')

Tag = int | Literal["*"] | None
"""A key's revision; any revision; or not given."""


@attrs.frozen
class Preconditions:
    """``If-Match`` and ``If-None-Match``.

    An entity tag is the revision of a key's last change in quotes, ``"42"``; without them it is
    understood too.

    Source: RFC 9110 §13.1.
    """

    match: Tag
    none_match: Tag


def preconditions(headers: Iterable[tuple[bytes, bytes]]) -> Preconditions:
    """Return the preconditions in *headers*, whose names are in lower case.

    Raises:
        Problem: one is malformed, given twice, or needs more than one entity tag.
    """
    found: dict[bytes, Tag] = {b"if-match": None, b"if-none-match": None}
    for name, text in headers:
        if name in (b"if-unmodified-since", b"if-modified-since", b"range", b"content-range"):
            # To ignore one would be to do what the client has not asked for.
            raise Problem(400, "bad-precondition", f"{name.decode()} is not supported")
        if name in found:
            tag = _TAG.fullmatch(text)
            if found[name] is not None or not (tag or text == b"*"):
                raise Problem(400, "bad-precondition", f'{name.decode()} takes one revision, like "42", or *')
            found[name] = int(tag[1] or tag[2]) if tag else "*"
    return Preconditions(found[b"if-match"], found[b"if-none-match"])
