"""The HTTP resources, as a table, and what their methods do."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from huton.errors import RequestError
from huton.frontends.http_messages import (
    Problem,
    Query,
    Response,
    json_response,
    preconditions,
    problem_of,
    split_target,
)
from huton.frontends.paging import Range, read_page

if TYPE_CHECKING:
    from huton.kv.machine import KeyValue
    from huton.runtime.node import Node

__all__ = ["LIMIT_MAX", "ROUTES", "Request", "Route", "find_route", "perform"]

LIMIT: Final = 1_000
LIMIT_MAX: Final = 10_000
"""Keys in one page of a list."""


@attrs.frozen
class Request:
    """One request of a resource.

    Attributes:
        names: the segments of the path that stand for a name, decoded.
        headers: names in lower case.
    """

    names: tuple[bytes, ...]
    query: Query
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


Method = Callable[["Node", Request], Awaitable[Response]]


@attrs.frozen
class Route:
    """One resource.

    Attributes:
        path: its segments; None stands for any name.
        methods: what it does, by HTTP's word; whoever has GET has HEAD.
    """

    path: tuple[bytes | None, ...]
    methods: Mapping[bytes, Method]

    def allow(self) -> bytes:
        """Return the value of an Allow header."""
        return b", ".join(sorted({*self.methods, b"HEAD"} if b"GET" in self.methods else self.methods))


def find_route(method: bytes, target: bytes) -> tuple[Method, tuple[bytes, ...], Query]:
    """Return (what to do, the names in the path, the query).

    Raises:
        Problem: there is no such resource (404), or it has no such method (405).
    """
    segments, query = split_target(target)
    for route in ROUTES:
        if len(route.path) == len(segments) and all(
            part is None or part == segment for part, segment in zip(route.path, segments, strict=True)
        ):
            wanted = b"GET" if method == b"HEAD" else method
            if wanted not in route.methods:
                allow = route.allow()
                raise Problem(
                    405, "method-not-allowed", f"this resource has {allow.decode()}", headers=[(b"Allow", allow)]
                )
            names = tuple(segment for part, segment in zip(route.path, segments, strict=True) if part is None)
            return route.methods[wanted], names, query
    raise Problem(404, "no-such-resource", "no such resource; a slash within a name is written %2F")


async def perform(node: Node, method: Method, request: Request) -> Response:
    """Return the response to *request*, also if it fails."""
    try:
        return await method(node, request)
    except RequestError as error:
        return problem_of(error).response()
    except Problem as problem:
        return problem.response()


# --------------------------------------------------------------------- one key


async def get_key(node: Node, request: Request) -> Response:
    name, key = request.names
    local = request.query.flag("local")
    request.query.end()
    condition = preconditions(request.headers)
    bucket = node.bucket(name)
    entry = bucket.get_entry_local(key) if local else await bucket.get_entry(key)
    if entry is None:
        if condition.match is not None:
            raise Problem(412, "compare-failed", "there is no such key")
        raise Problem(404, "not-found", "there is no such key")
    if condition.match not in (None, "*", entry.mod_revision):
        raise Problem(412, "compare-failed", f"the key's revision is {entry.mod_revision}")
    headers = (*_revision(entry.mod_revision), (b"Cache-Control", b"no-cache"))
    if condition.none_match in ("*", entry.mod_revision):
        return Response(304, headers)
    return Response(
        200,
        (
            (b"Content-Type", b"application/octet-stream"),
            # Whoever may write a value shall not thereby run scripts in the browser of whoever reads it.
            (b"X-Content-Type-Options", b"nosniff"),
            *headers,
            (b"X-Huton-Create-Revision", b"%d" % entry.create_revision),
            (b"X-Huton-Version", b"%d" % entry.version),
        ),
        entry.value,
    )


async def put_key(node: Node, request: Request) -> Response:
    name, key = request.names
    request.query.end()
    condition = preconditions(request.headers)
    bucket = node.bucket(name)
    match condition.match, condition.none_match:
        case None, None:
            revision = await bucket.set(key, request.body)
        case None, "*":
            revision = await bucket.set(key, request.body, only_if="absent")
        case "*", None:
            revision = await bucket.set(key, request.body, only_if="present")
        case int(expected), None if expected > 0:
            revision = await bucket.compare_and_set(key, request.body, expected_revision=expected)
        case _:
            raise Problem(400, "bad-precondition", "PUT takes If-None-Match: *, If-Match: *, or If-Match: a revision")
    return Response(204, _revision(revision))


async def delete_key(node: Node, request: Request) -> Response:
    name, key = request.names
    request.query.end()
    condition = preconditions(request.headers)
    if condition.match is not None or condition.none_match is not None:
        raise Problem(400, "bad-precondition", "DELETE takes no precondition")
    if not await node.bucket(name).delete(key):
        raise Problem(404, "not-found", "there was no such key")
    return Response(204)


def _revision(revision: int) -> tuple[tuple[bytes, bytes], ...]:
    return (b"ETag", b'"%d"' % revision), (b"X-Huton-Mod-Revision", b"%d" % revision)


# ------------------------------------------------------------------- many keys


async def get_keys(node: Node, request: Request) -> Response:
    (name,) = request.names
    query = request.query
    within = Range(
        prefix=query.octets("prefix") or b"",
        start=query.octets("start"),
        stop=query.octets("stop"),
        reverse=query.flag("reverse"),
    )
    after = query.octets("after")
    if after is not None:
        within = within.beyond(after)
    limit = query.number("limit", default=LIMIT, most=LIMIT_MAX)
    local = query.flag("local")
    query.end()
    page = await read_page(node.bucket(name), within, limit, local=local)
    return json_response(200, {"entries": [_entry(entry) for entry in page.entries], "more": page.more})


def _entry(entry: KeyValue) -> dict[str, object]:
    return {
        **_text("key", entry.key),
        **_text("value", entry.value),
        "create_revision": entry.create_revision,
        "mod_revision": entry.mod_revision,
        "version": entry.version,
    }


def _text(name: str, octets: bytes) -> dict[str, object]:
    """JSON knows no bytes: a member ``name`` if they are UTF-8, else ``name_base64``."""
    try:
        return {name: octets.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(octets).decode()}


# -------------------------------------------------------------------- the node


async def get_status(node: Node, request: Request) -> Response:
    request.query.end()
    status = node.status()
    content = {
        "name": status.name,
        "role": status.role,
        "term": status.term,
        "leader": status.leader,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "cluster_id": status.cluster_id,
        "members": [
            {
                "name": member.name,
                "address": str(member.address),
                "incarnation": member.incarnation,
                "leader": member.leader,
            }
            for member in status.members
        ],
    }
    return json_response(200, content, [(b"Cache-Control", b"no-store")])


ROUTES: Final[Sequence[Route]] = (
    Route((b"v1", b"buckets", None, b"keys"), {b"GET": get_keys}),
    Route((b"v1", b"buckets", None, b"keys", None), {b"DELETE": delete_key, b"GET": get_key, b"PUT": put_key}),
    Route((b"v1", b"status"), {b"GET": get_status}),
)
