"""Doors that are locked: a password for redis clients, a token for HTTP, TLS for both."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from huton.client import Client
from huton.config import load_client_tls, load_server_tls
from huton.errors import ConfigError, InvalidRequest
from tests.frontends.doors import Doors, in_thread, open_doors, read_until

pytestmark = pytest.mark.anyio

PASSWORD = "päßword"
TOKEN = "a-token"


# ------------------------------------------------------------------ redis


async def replies(doors: Doors, sent: bytes, count: int) -> list[bytes]:
    """Return the first *count* lines that come back for *sent*."""
    async with await doors.connect_resp() as stream:
        await stream.send_all(sent)
        received = b""
        while received.count(b"\r\n") < count:
            received += await read_until(stream, b"\r\n")
    return received.split(b"\r\n")[:count]


@pytest.mark.parametrize(
    "command", [b"GET k", b"SET k v", b"PING", b"INFO", b"COMMAND", b"CLIENT ID", b"nonsense", b"KEYS *", b"GET"]
)
async def test_nothing_works_before_the_password(tmp_path: Path, command: bytes) -> None:
    """In redis' words, so that clients understand; not even whether a command exists is told."""
    async with open_doors(tmp_path, password=PASSWORD) as doors:
        assert await replies(doors, command + b"\r\n", 1) == [b"-NOAUTH Authentication required."]


async def test_a_pipeline_is_let_in_where_the_password_comes(tmp_path: Path) -> None:
    """What comes before it is refused, what comes after it is carried out."""
    async with open_doors(tmp_path, password=PASSWORD) as doors:
        sent = b"SET k 1\r\nAUTH wrong\r\nAUTH %b\r\nSET k 2\r\nGET k\r\n" % PASSWORD.encode()

        lines = await replies(doors, sent, 6)

        assert [line[:9] for line in lines[:2]] == [b"-NOAUTH A", b"-WRONGPAS"]
        assert lines[2:] == [b"+OK", b"+OK", b"$1", b"2"]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py_comes_in_with_the_password(tmp_path: Path, protocol: int) -> None:
    """AUTH, or HELLO with AUTH in it, with and without the name of the one user there is."""

    def talk(doors: Doors) -> None:
        for user in (None, "default"):
            with doors.redis(password=PASSWORD, username=user, protocol=protocol) as client:
                assert client.set("k", "v")
        for user, password in ((None, "wrong"), ("somebody", PASSWORD)):
            with (
                doors.redis(password=password, username=user, protocol=protocol) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.get("k")

    async with open_doors(tmp_path, password=PASSWORD) as doors:
        await in_thread(lambda: talk(doors))


async def test_reset_locks_the_door_again(tmp_path: Path) -> None:
    """RESET makes a connection what it was when it was accepted."""
    async with open_doors(tmp_path, password="p") as doors:
        lines = await replies(doors, b"AUTH p\r\nRESET\r\nGET k\r\n", 3)

        assert lines == [b"+OK", b"+RESET", b"-NOAUTH Authentication required."]


@pytest.mark.parametrize("sent", [b"*11\r\n", b"*2\r\n$3\r\nGET\r\n$16385\r\n"])
async def test_a_stranger_gets_no_room(tmp_path: Path, sent: bytes) -> None:
    """A long command before the password ends the connection, and takes no memory."""
    async with open_doors(tmp_path, password="p") as doors:
        async with await doors.connect_resp() as stream:
            await stream.send_all(sent)
            assert (await read_until(stream)).startswith(b"-ERR Protocol error: ")
        async with await doors.connect_resp() as stream:
            await stream.send_all(b"AUTH p\r\n")
            assert await read_until(stream, b"\r\n") == b"+OK\r\n"
            await stream.send_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000\r\n" + bytes(20_000) + b"\r\n")
            assert await read_until(stream, b"\r\n") == b"+OK\r\n"


# ------------------------------------------------------------------ HTTP


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/status"), ("PUT", "/v1/buckets/b/keys/k"), ("GET", "/")])
async def test_without_the_token_nothing_is_said(
    tmp_path: Path, headers: dict[str, str], method: str, path: str
) -> None:
    """401 with a challenge (RFC 6750), whatever is asked for."""

    def ask(doors: Doors) -> None:
        address = doors.http["n1"]
        connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
        connection.request(method, path, b"v" if method == "PUT" else None, headers)
        response = connection.getresponse()
        body = json.loads(response.read())
        assert (response.status, body["error"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="huton"'
        connection.close()

    async with open_doors(tmp_path, token=TOKEN) as doors:
        await in_thread(lambda: ask(doors))


async def test_with_the_token_everything_works(tmp_path: Path) -> None:
    """As the command line shows it."""

    def talk(doors: Doors) -> None:
        client = Client(doors.http["n1"], token=TOKEN)
        client.set("b", b"k", b"v")
        assert client.get("b", b"k") == b"v"
        with pytest.raises(InvalidRequest, match="Authorization"):
            Client(doors.http["n1"], token="wrong").get("b", b"k")

    async with open_doors(tmp_path, token=TOKEN) as doors:
        await in_thread(lambda: talk(doors))


# ------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Iterator[Path]:
    """A directory with ca.crt, and server.crt and server.key for 127.0.0.1."""
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.crt")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    yield tmp_path


async def test_clients_speak_through_tls(files: Path) -> None:
    """redis-py and huton's own client, who check the server's certificate."""

    def talk(doors: Doors) -> None:
        with doors.redis(ssl=True, ssl_ca_certs=str(files / "ca.crt")) as client:
            assert client.set("k", b"v" * 1_000_000)
            assert client.get("k") == b"v" * 1_000_000
        http_client = Client(doors.http["n1"], load_client_tls(files / "ca.crt"))
        http_client.set("b", b"k", b"v")
        assert http_client.get("b", b"k") == b"v"

    tls = load_server_tls(files / "server.crt", files / "server.key")
    async with open_doors(files / "data", client_tls=tls) as doors:
        await in_thread(lambda: talk(doors))


async def test_whoever_speaks_no_tls_is_cut_off(files: Path) -> None:
    """The door stays open for others."""
    tls = load_server_tls(files / "server.crt", files / "server.key")
    async with open_doors(files / "data", client_tls=tls) as doors:
        for connect in (doors.connect_resp, doors.connect_http):
            async with await connect() as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                assert b"HTTP/" not in await read_until(stream)

        def talk() -> None:
            with doors.redis(ssl=True, ssl_ca_certs=str(files / "ca.crt")) as client:
                assert client.ping()

        await in_thread(talk)


@pytest.mark.parametrize(
    ("cert", "key", "complaint"),
    [
        ("missing", "server.key", "tls_cert: .*missing: No such file"),
        ("server.crt", "missing", "tls_key: .*missing: No such file"),
        ("server.key", "server.crt", "are no certificate and its key"),
        ("ca.crt", "server.key", "are no certificate and its key"),
    ],
)
def test_files_that_are_no_certificate(files: Path, cert: str, key: str, complaint: str) -> None:
    """The error names the file."""
    with pytest.raises(ConfigError, match=complaint):
        load_server_tls(files / cert, files / key)
