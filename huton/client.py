"""A small blocking HTTP client: what the command line and the demo talk to an agent with.

    client = Client(Address("127.0.0.1", 7422))
    client.set("users", b"ada", b"1815")
    client.get("users", b"ada")            # b"1815"

Each call opens a connection of its own, so one client can serve many threads. It sends a request once:
whether a write whose outcome is unknown should be repeated is for the caller to say.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import attrs

from huton.config import Address
from huton.errors import HutonError, InvalidRequest, NoLeader, OutcomeUnknown, Overloaded, RequestError, StorageFull

__all__ = ["Client", "Pair", "Unreachable"]

PAGE: Final = 1_000
"""Keys that ``scan`` asks for at a time."""

_ERRORS: Final = {
    "no-leader": NoLeader,
    "overloaded": Overloaded,
    "storage-full": StorageFull,
    "outcome-unknown": OutcomeUnknown,
}


class Unreachable(HutonError):
    """No agent answers at the address; nothing was written."""


@attrs.frozen
class Pair:
    """A key and its value."""

    key: bytes
    value: bytes


@attrs.frozen
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@attrs.frozen
class Client:
    """Talks to the agent at one address; any member of a cluster will do.

    Every call may raise ``Unreachable``, or the ``RequestError`` by which the agent says why not.

    Attributes:
        address: where the agent serves HTTP.
        tls: what the agent is spoken to through, if anything; its certificate has to bear the address's host.
        token: what the agent wants to see, if anything.
        timeout: seconds to wait for an answer; longer than the agent's own limit, so that it is the
            agent that says what became of a request.
    """

    address: Address
    tls: ssl.SSLContext | None = None
    token: str | None = None
    timeout: float = 15.0

    def status(self) -> dict[str, Any]:
        """Return what the agent knows of itself and its cluster: the fields of ``/v1/status``."""
        found: dict[str, Any] = json.loads(self._ask("GET", "/v1/status").body)
        return found

    def get(self, bucket: str, key: bytes) -> bytes | None:
        """Return the value of *key*, or None if there is none; linearizable."""
        answer = self._ask("GET", _path(bucket, key))
        return None if answer.status == http.HTTPStatus.NOT_FOUND else answer.body

    def set(self, bucket: str, key: bytes, value: bytes) -> int:
        """Set *key* and return the revision of the write.

        Raises:
            OutcomeUnknown: it may have happened, or may still happen.
        """
        return int(self._ask("PUT", _path(bucket, key), value).headers["X-Huton-Mod-Revision"])

    def delete(self, bucket: str, key: bytes) -> bool:
        """Delete *key*; return whether there was one.

        Raises:
            OutcomeUnknown: it may have happened, or may still happen.
        """
        return self._ask("DELETE", _path(bucket, key)).status != http.HTTPStatus.NOT_FOUND

    def scan(self, bucket: str, prefix: bytes = b"", *, limit: int | None = None) -> Iterator[Pair]:
        """Yield the keys that begin with *prefix* and their values, in order, at most *limit*.

        Pages are read one after the other: each is linearizable, all of them together are not.
        """
        left = limit
        query: dict[str, bytes | int] = {"prefix": prefix}
        while True:
            query["limit"] = PAGE if left is None else min(PAGE, left)
            page = json.loads(self._ask("GET", f"{_path(bucket)}?{urlencode(query, quote_via=quote)}").body)
            for entry in page["entries"]:
                yield Pair(_octets(entry, "key"), _octets(entry, "value"))
            if left is not None:
                left -= len(page["entries"])
            if not page["more"] or left == 0:
                return
            query["after"] = _octets(page["entries"][-1], "key")

    def _ask(self, method: str, target: str, body: bytes | None = None) -> _Answer:
        """Send one request; return its answer, which says 'done' or 'no such key'."""
        connection = self._connection()
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        try:
            try:
                connection.connect()
            except OSError as error:
                raise Unreachable(f"nobody answers at {self.address}: {error.strerror or error}") from error
            try:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                answer = _Answer(response.status, response.headers, response.read())
            except (OSError, http.client.HTTPException) as error:
                lost = f"the answer of {self.address} was lost: {type(error).__name__}: {error}"
                raise (Unreachable(lost) if method == "GET" else OutcomeUnknown(lost)) from error
        finally:
            connection.close()
        return _check(self.address, answer)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        if self.tls is None:
            return http.client.HTTPConnection(host, port, timeout=self.timeout)
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=self.tls)


def _check(address: Address, answer: _Answer) -> _Answer:
    if answer.status < 300:
        return answer
    try:
        problem = json.loads(answer.body)
        code, message = str(problem["error"]), str(problem["message"])
    except (ValueError, TypeError, LookupError):
        raise Unreachable(f"whoever answers at {address} is no huton: status {answer.status}") from None
    if code == "not-found":
        return answer
    if 400 <= answer.status < 500:
        raise InvalidRequest(message)
    raise _ERRORS.get(code, RequestError)(message)


def _path(bucket: str, key: bytes | None = None) -> str:
    keys = f"/v1/buckets/{quote(bucket, safe='')}/keys"
    return keys if key is None else f"{keys}/{quote(key, safe='')}"


def _octets(entry: Mapping[str, str], name: str) -> bytes:
    """Return the bytes that JSON can't hold as such: text if they are UTF-8, else in base 64."""
    text = entry.get(name)
    return base64.b64decode(entry[f"{name}_base64"]) if text is None else text.encode()
