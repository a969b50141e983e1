"""Real HTTP clients, and some that misbehave, against real nodes."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import trio

from huton.config import Address
from huton.frontends import http as door
from tests.frontends.doors import Doors, in_thread, open_doors, read_until

pytestmark = pytest.mark.anyio

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

HOST = b"Host: huton\r\n"


class Client:
    """One connection that is kept open, as http.client does."""

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=20)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return (status, headers in lower case, body)."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self._connection.request(method, target, body, named)
        response = self._connection.getresponse()
        return response.status, {name.lower(): text for name, text in response.getheaders()}, response.read()


def key_path(key: bytes, bucket: bytes = b"users") -> str:
    return f"/v1/buckets/{quote(bucket, safe='')}/keys/{quote(key, safe='')}"


async def converse(doors: Doors, function: Callable[[Client], None], name: str = "n1") -> None:
    def run() -> None:
        with Client(doors.http[name]) as client:
            function(client)

    await in_thread(run)


async def test_a_key_lives_from_put_to_delete(tmp_path: Path) -> None:
    """PUT answers 204 and the revision, GET 200 and the raw bytes, DELETE 204, and 404 if there was none."""

    def live(client: Client) -> None:
        path, value = key_path(b"ada"), bytes(range(256))
        assert client.ask("GET", path)[0] == 404
        status, put, body = client.ask("PUT", path, value)
        assert (status, body) == (204, b"")
        assert put["etag"] == f'"{put["x-huton-mod-revision"]}"'
        status, got, body = client.ask("GET", path)
        assert (status, body, got["content-type"]) == (200, value, "application/octet-stream")
        assert (got["etag"], got["x-huton-version"]) == (put["etag"], "1")
        assert got["x-huton-create-revision"] == put["x-huton-mod-revision"]
        status, head, body = client.ask("HEAD", path)
        assert (status, head, body) == (200, got, b"")
        assert client.ask("PUT", path, b"")[0] == 204
        assert client.ask("GET", path + "?local=true")[2] == b""
        assert client.ask("DELETE", path)[0] == 204
        status, _, body = client.ask("DELETE", path)
        assert (status, json.loads(body)["error"]) == (404, "not-found")
        assert client.ask("HEAD", path)[0] == 404

    async with open_doors(tmp_path) as doors:
        await converse(doors, live)


async def test_keys_and_buckets_are_any_bytes(tmp_path: Path) -> None:
    """A slash, a percent sign, a dot, no UTF-8 at all: percent-encoding carries them."""
    names = [b"a/b", b"/", b"..", b"%2F", b"a b+c?d#e&f", b"\x00\xff", b"k" * 400]

    def put(client: Client) -> None:
        for name in names:
            assert client.ask("PUT", key_path(name, bucket=name[:64]), name)[0] == 204

    async with open_doors(tmp_path) as doors:
        await converse(doors, put)
        for name in names:
            assert doors.node.bucket(name[:64]).get_local(name) == name


async def test_preconditions_compare_and_set(tmp_path: Path) -> None:
    """If-None-Match: * creates, If-Match: * replaces, If-Match: a revision swaps; 412 if it isn't so."""

    def swap(client: Client) -> None:
        path = key_path(b"ada")
        assert client.ask("PUT", path, b"0", If_Match="*")[0] == 412
        assert client.ask("PUT", path, b"1", If_None_Match="*")[0] == 204
        status, _, body = client.ask("PUT", path, b"2", If_None_Match="*")
        assert (status, json.loads(body)["error"]) == (412, "compare-failed")
        etag = client.ask("HEAD", path)[1]["etag"]
        newer = client.ask("PUT", path, b"3", If_Match=etag)[1]["etag"]
        assert client.ask("PUT", path, b"4", If_Match=etag)[0] == 412
        assert client.ask("PUT", path, b"5", If_Match="*")[0] == 204
        assert client.ask("GET", path, If_Match=newer)[0] == 412
        newest = client.ask("HEAD", path)[1]["etag"]
        assert client.ask("GET", path, If_None_Match=newest)[0] == 304
        assert client.ask("GET", path, If_None_Match=newer)[2] == b"5"
        for headers in ({"If_Match": '"0"'}, {"If_None_Match": '"3"'}, {"If_Match": "*", "If_None_Match": "*"}):
            assert client.ask("PUT", path, b"6", **headers)[0] == 400
        assert client.ask("DELETE", path, If_Match="*")[0] == 400
        assert client.ask("GET", path)[2] == b"5"

    async with open_doors(tmp_path) as doors:
        await converse(doors, swap)


async def test_keys_are_listed_in_pages(tmp_path: Path) -> None:
    """prefix, start, stop, limit, reverse and after, in any language that knows JSON."""

    def found(client: Client, **query: Any) -> tuple[list[str], bool]:
        status, _, body = client.ask("GET", f"/v1/buckets/users/keys?{urlencode(query)}")
        assert status == 200, body
        page = json.loads(body)
        return [entry["key"] for entry in page["entries"]], page["more"]

    def read(client: Client) -> None:
        assert found(client) == (["a1", "a2", "a3", "b1", "b2"], False)
        assert found(client, prefix="a") == (["a1", "a2", "a3"], False)
        assert found(client, start="a2", stop="b2") == (["a2", "a3", "b1"], False)
        assert found(client, limit=2) == (["a1", "a2"], True)
        assert found(client, limit=2, after="a2") == (["a3", "b1"], True)
        assert found(client, limit=2, after="b1") == (["b2"], False)
        assert found(client, limit=5) == (["a1", "a2", "a3", "b1", "b2"], False)
        assert found(client, limit=2, reverse="true") == (["b2", "b1"], True)
        assert found(client, limit=2, reverse="true", after="b1", prefix="a") == (["a3", "a2"], True)
        assert found(client, local="true", start="b", after="a1") == (["b1", "b2"], False)
        assert client.ask("GET", "/v1/buckets/users/keys?limit=10001")[0] == 400
        assert client.ask("GET", "/v1/buckets/users/keys?prefx=a")[0] == 400
        assert found(client, prefix="nobody") == ([], False)

    async with open_doors(tmp_path) as doors:
        await doors.node.bucket("users").set_many({key.encode(): b"v" for key in ("a1", "a2", "a3", "b1", "b2")})
        await converse(doors, read)


async def test_a_list_says_which_bytes_are_text(tmp_path: Path) -> None:
    """``key`` and ``value`` if they are UTF-8, else ``key_base64`` and ``value_base64``; revisions are numbers."""

    def read(client: Client) -> None:
        page = json.loads(client.ask("GET", "/v1/buckets/users/keys")[2])
        text, octets = page["entries"]
        assert (text["key"], text["value"], text["version"]) == ("ä", "", 2)
        assert text["mod_revision"] > text["create_revision"] > 0
        assert base64.b64decode(octets["key_base64"]) == b"\xff"
        assert base64.b64decode(octets["value_base64"]) == b"\xfe\x00"
        assert not {"key", "value"} & set(octets)

    async with open_doors(tmp_path) as doors:
        bucket = doors.node.bucket("users")
        await bucket.set("ä".encode(), b"x")
        await bucket.set_many({"ä".encode(): b"", b"\xff": b"\xfe\x00"})
        await converse(doors, read)


async def test_a_page_of_long_values_is_cut_short(tmp_path: Path) -> None:
    """A page is a bounded number of bytes, and who goes on after its last key misses nothing."""
    keys = [f"k{number:03}" for number in range(150)]

    def read(client: Client) -> None:
        listed: list[str] = []
        pages = 0
        more = True
        while more:
            after = {"after": listed[-1]} if listed else {}
            _, _, body = client.ask("GET", f"/v1/buckets/users/keys?{urlencode(after)}")
            assert len(body) < 12 << 20
            page = json.loads(body)
            assert page["entries"]
            listed += [entry["key"] for entry in page["entries"]]
            more = page["more"]
            pages += 1
        assert listed == keys
        assert pages > 1

    async with open_doors(tmp_path) as doors:
        for key in keys:
            await doors.node.bucket("users").set(key.encode(), b"x" * 100_000)
        await converse(doors, read)


async def test_the_status_tells_of_the_cluster(tmp_path: Path) -> None:
    """Name, role, term, leader, members, commit and applied index, as the node itself says it."""

    def read(client: Client) -> None:
        status, headers, body = client.ask("GET", "/v1/status")
        assert (status, headers["content-type"]) == (200, "application/json")
        said.update(json.loads(body))

    said: dict[str, Any] = {}
    async with open_doors(tmp_path, size=3) as doors:
        leader = await doors.cluster.leader()
        await converse(doors, read, "n2")
        status = doors.cluster.node("n2").status()
    assert (said["name"], said["leader"], said["term"]) == ("n2", leader, status.term)
    assert (said["role"], said["cluster_id"]) == (status.role, status.cluster_id)
    assert said["applied_index"] <= said["commit_index"] <= status.commit_index
    assert [member["name"] for member in said["members"]] == ["n1", "n2", "n3"]
    assert [member["name"] for member in said["members"] if member["leader"]] == [leader]
    assert all(len(member["incarnation"]) == 32 and ":" in member["address"] for member in said["members"])


async def test_every_node_takes_writes_and_reads(tmp_path: Path) -> None:
    """What one node has acknowledged, every other one returns."""
    async with open_doors(tmp_path, size=3) as doors:

        def write_and_read() -> None:
            for writer in doors.http:
                with Client(doors.http[writer]) as client:
                    assert client.ask("PUT", key_path(b"who"), writer.encode())[0] == 204
                for reader in doors.http:
                    with Client(doors.http[reader]) as client:
                        assert client.ask("GET", key_path(b"who"))[2] == writer.encode()

        await in_thread(write_and_read)


# ---------------------------------------------------------------------- curl


def curl(*words: object, stdin: bytes = b"") -> Callable[[], str]:
    command = ["curl", "-sS", "--max-time", "20", *[str(word) for word in words]]
    return lambda: subprocess.run(command, input=stdin, capture_output=True, check=True).stdout.decode()


@needs_curl
async def test_curl_works(tmp_path: Path) -> None:
    """A person's first minute: store, read, list, delete; a body that curl asks leave for, a chunked one, HTTP/1.0."""
    async with open_doors(tmp_path) as doors:
        users = f"http://{doors.http['n1']}/v1/buckets/users/keys"
        code = ["-w", "%{http_code}"]
        assert await in_thread(curl(*code, "-X", "PUT", "-d", "1815", f"{users}/ada")) == "204"
        assert await in_thread(curl(f"{users}/ada")) == "1815"
        assert await in_thread(curl("-0", f"{users}/ada")) == "1815"
        assert '"key":"ada"' in await in_thread(curl(users))
        assert await in_thread(curl(*code, "-X", "DELETE", f"{users}/ada")) == "204"
        long = b"x" * 1_000_000
        options = ["-T", "-", "-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked"]
        assert await in_thread(curl(*code, *options, f"{users}/long", stdin=long)) == "204"
        assert doors.node.bucket("users").get_local(b"long") == long


# ------------------------------------------------------------------ bare bytes


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return line + b" HTTP/1.1\r\n" + HOST + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """RFC 9112 §9.3.2: a server 'MUST send the corresponding responses in the same order'."""
    key = b" /v1/buckets/b/keys/k"
    async with open_doors(tmp_path) as doors, await doors.connect_http() as stream:
        await stream.send_all(
            request(b"PUT" + key, b"Content-Length: 1", body=b"1")
            + request(b"GET" + key)
            + request(b"PUT" + key, b"Transfer-Encoding: chunked", body=b"1\r\n2\r\n1\r\n3\r\n0\r\n\r\n")
            + request(b"POST" + key, b"Content-Length: 4", body=b"GET ")
            + request(b"GET" + key, b"Connection: close")
        )
        received = await read_until(stream)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"204", b"200", b"204", b"405", b"200"]
    assert received.endswith(b"\r\n\r\n23")


async def test_a_body_is_asked_for_only_if_it_is_wanted(tmp_path: Path) -> None:
    """RFC 9110 §10.1.1: who expects 100 gets it, or a final status instead of it."""
    expect = (b"Expect: 100-continue", b"Content-Length: 1")
    async with open_doors(tmp_path) as doors:
        async with await doors.connect_http() as stream:
            await stream.send_all(request(b"PUT /v1/buckets/b/keys/k", *expect))
            assert await read_until(stream, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(b"v")
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        for line, status in ((b"PUT /v2", b"404"), (b"PUT /v1/status", b"405")):
            async with await doors.connect_http() as stream:
                await stream.send_all(request(line, *expect))
                received = await read_until(stream)
            assert received.startswith(b"HTTP/1.1 " + status)
            assert b"\r\nConnection: close\r\n" in received


async def test_a_client_of_http_1_0_is_answered_and_closed(tmp_path: Path) -> None:
    """It doesn't know connections that stay open, nor chunks, nor Host."""
    async with open_doors(tmp_path) as doors, await doors.connect_http() as stream:
        await stream.send_all(b"GET /v1/status HTTP/1.0\r\n\r\n")
        received = await read_until(stream)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: " in received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["name"] == "n1"


BODY_MAX = door.BODY_BYTES_MAX


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "bad-request"),
        (b"*1\r\n$4\r\nPING\r\n\r\n", 400, "bad-request"),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400, "bad-request"),
        (request(b"GET v1/status"), 400, "bad-target"),
        (request(b"GET /v1/buckets/b/keys/%4"), 400, "bad-target"),
        (request(b"GET /v1/buckets/b/keys/"), 400, "invalid-request"),
        (request(b"GET /v1/buckets//keys/k"), 400, "invalid-request"),
        (request(b"GET /v1/buckets/b/keys/" + b"k" * 401), 400, "invalid-request"),
        (request(b"GET /v1/buckets/b/keys/k?loca=true"), 400, "bad-query"),
        (request(b"GET /v1/nothing"), 404, "no-such-resource"),
        (request(b"PATCH /v1/buckets/b/keys/k"), 405, "method-not-allowed"),
        (request(b"OPTIONS /v1/status"), 405, "method-not-allowed"),
        (request(b"GET /" + b"a" * door.TARGET_BYTES_MAX), 414, "target-too-long"),
        (request(b"GET /", b"A: " + b"a" * 100_000), 431, "bad-request"),
        (request(b"PUT /v1/buckets/b/keys/k", b"Content-Length: %d" % (BODY_MAX + 1)), 413, "body-too-large"),
        (request(b"PUT /v1/buckets/b/keys/k", b"Content-Length: 1", b"Content-Length: 2"), 400, "bad-request"),
        (request(b"PUT /v1/buckets/b/keys/k", b"Transfer-Encoding: gzip"), 501, "bad-request"),
        (request(b"PUT /v1/buckets/b/keys/k", b"Transfer-Encoding: chunked", body=b"x\r\n"), 400, "bad-request"),
    ],
)
async def test_what_is_wrong_is_answered_and_harms_nobody_else(
    tmp_path: Path, sent: bytes, status: int, code: str
) -> None:
    """A status, a word for programs and a sentence for people; other connections go on."""
    async with open_doors(tmp_path) as doors, await doors.connect_http() as other:
        await other.send_all(b"GET /v1/status HT")
        async with await doors.connect_http() as stream:
            await stream.send_all(sent)
            received = await read_until(stream, b"}\n")
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()))
        problem = json.loads(body)
        assert problem["error"] == code
        assert problem["message"]
        await other.send_all(b"TP/1.1\r\n" + HOST + b"\r\n")
        assert (await read_until(other, b"}\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_chunked_body_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never says how much will come is stopped when it is too much."""
    monkeypatch.setattr(door, "BODY_BYTES_MAX", 1_000)
    chunk = b"64\r\n" + b"x" * 100 + b"\r\n"
    async with open_doors(tmp_path) as doors, await doors.connect_http() as stream:
        await stream.send_all(request(b"PUT /v1/buckets/b/keys/k", b"Transfer-Encoding: chunked", body=chunk * 11))
        assert (await read_until(stream)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/sta",
        request(b"PUT /v1/buckets/b/keys/k", b"Content-Length: 2", body=b"a"),
    ],
)
async def test_a_client_that_stops_in_the_middle_of_a_request_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """It is told 408; what it has sent so far was memory."""
    monkeypatch.setattr(door, "REQUEST_SECONDS", 0.05)
    async with open_doors(tmp_path) as doors, await doors.connect_http() as stream:
        await stream.send_all(sent)
        assert (await read_until(stream)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_an_idle_connection_is_closed_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to nothing would be taken for the answer to the next request."""
    monkeypatch.setattr(door, "IDLE_SECONDS", 0.05)
    async with open_doors(tmp_path) as doors, await doors.connect_http() as stream:
        await stream.send_all(request(b"HEAD /v1/status"))
        received = await read_until(stream)
    assert received.count(b"HTTP/1.1") == 1
    assert received.endswith(b"\r\n\r\n")


async def test_one_connection_too_many_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 at once, and the place is free again as soon as somebody leaves."""
    monkeypatch.setattr(door, "CONNECTIONS_MAX", 1)
    status = request(b"HEAD /v1/status")
    async with open_doors(tmp_path) as doors:
        async with await doors.connect_http() as first:
            await first.send_all(status)
            await read_until(first, b"\r\n\r\n")
            async with await doors.connect_http() as second:
                received = await read_until(second)
        assert received.startswith(b"HTTP/1.1 503 ")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"] == "overloaded"
        with trio.fail_after(20):
            while not received.startswith(b"HTTP/1.1 200 "):
                async with await doors.connect_http() as third:
                    await third.send_all(status)
                    received = await read_until(third, b"\r\n\r\n")


# ------------------------------------------------------------------- no quorum


async def test_a_node_without_a_cluster_says_so(tmp_path: Path) -> None:
    """503 no-leader: nothing was written, and when to try again. The status needs no cluster."""

    def ask(client: Client) -> None:
        for method in ("GET", "PUT", "DELETE"):
            status, headers, body = client.ask(method, key_path(b"k"), b"v" if method == "PUT" else None)
            assert (status, json.loads(body)["error"], headers["retry-after"]) == (503, "no-leader", "1")
        assert client.ask("GET", key_path(b"k") + "?local=true")[0] == 503
        status, _, body = client.ask("GET", "/v1/status")
        assert (status, json.loads(body)["role"]) == (200, "unborn")

    async with open_doors(tmp_path, size=3, ready=False, request_timeout=0.2) as doors:
        await converse(doors, ask)


async def test_a_write_whose_end_nobody_knows_says_so(tmp_path: Path) -> None:
    """504 outcome-unknown: a leader that has lost its followers can't say what becomes of the write."""

    def ask(client: Client) -> None:
        status, headers, body = client.ask("PUT", key_path(b"k"), b"v")
        assert (status, json.loads(body)["error"]) == (504, "outcome-unknown")
        assert "retry-after" not in headers

    async with open_doors(tmp_path, size=3, request_timeout=0.5) as doors:
        leader = await doors.cluster.leader()
        await doors.cluster.node(leader).bucket("b").set(b"k", b"its session begins")
        await doors.cluster.stop(*[name for name in doors.cluster.names if name != leader])
        await converse(doors, ask, leader)
