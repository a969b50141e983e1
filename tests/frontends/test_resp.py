"""Real redis clients, and some that misbehave, against real nodes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from huton.frontends import listening, resp, resp_data
from tests.frontends.doors import in_thread, open_doors, read_until
from tests.runtime.cluster import until

pytestmark = pytest.mark.anyio

needs_redis_tools = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="needs redis-cli (redis-tools)")

CONVERSATION: list[tuple[tuple[Any, ...], Any]] = [
    (("PING",), True),
    (("PING hello",), b"hello"),
    (("ECHO", b"\x00\r\n\xff"), b"\x00\r\n\xff"),
    (("GET", "ada"), None),
    (("SET", "ada", b"\x00\r\n\xff"), True),
    (("GET", "ada"), b"\x00\r\n\xff"),
    (("SET", "empty", ""), True),
    (("GET", "empty"), b""),
    (("STRLEN", "ada"), 4),
    (("STRLEN", "nobody"), 0),
    (("TYPE", "ada"), b"string"),
    (("TYPE", "nobody"), b"none"),
    (("MSET", "a", "1", "b", "2", "a", "3"), True),
    (("MGET", "a", "b", "nobody", "a"), [b"3", b"2", None, b"3"]),
    (("EXISTS", "a", "a", "nobody"), 2),
    (("DEL", "a", "a", "nobody"), 1),
    (("UNLINK", "b"), 1),
    (("INCR", "n"), 1),
    (("INCRBY", "n", "9223372036854775806"), 9223372036854775807),
    (("DECR", "n"), 9223372036854775806),
    (("DECRBY", "n", "9223372036854775807"), -1),
    (("SET", "n", "2", "NX"), None),
    (("SET", "m", "2", "nx"), True),
    (("SET", "nobody", "2", "XX"), None),
    (("SET", "m", "3", "XX"), True),
    (("SET m 4 GET",), b"3"),
    (("SET m 5 NX GET",), b"4"),
    (("SET new 5 NX GET",), None),
    (("SET nobody 5 XX GET",), None),
    (("GETSET", "m", "6"), b"4"),
    (("SETNX", "m", "7"), 0),
    (("SETNX", "fresh", "7"), 1),
    (("KEYS", "*"), [b"ada", b"empty", b"fresh", b"m", b"n", b"new"]),
    (("KEYS", "[mn]*"), [b"m", b"n", b"new"]),
    (("DBSIZE",), 6),
    (("SELECT", "users"), True),
    (("DBSIZE",), 0),
    (("CLIENT SETNAME", "me"), True),
    (("COMMAND COUNT",), 29),
    (("SELECT", "0"), True),
    (("DBSIZE",), 6),
]

MISTAKES = [
    (("GET",), "wrong number of arguments for 'get' command"),
    (("get", "a", "b"), "wrong number of arguments for 'get' command"),
    (("MSET", "a", "1", "b"), "wrong number of arguments for 'mset' command"),
    (("HGET", "a", "b"), "unknown command 'HGET', with args beginning with: 'a' 'b'"),
    (("SET", "a", "1", "EX", "5"), "expiry is not supported"),
    (("SET", "a", "1", "NX", "XX"), "syntax error"),
    (("SET", "a", "1", "SOON"), "syntax error"),
    (("SET", "", "1"), "a key of 0 bytes"),
    (("SET", "k" * 401, "1"), "a key of 401 bytes"),
    (("SET", "k", b"v" * ((1 << 20) + 1)), "a value of 1048577 bytes"),
    (("INCRBY", "n", "1.5"), "value is not an integer or out of range"),
    (("INCRBY", "n", "9223372036854775808"), "value is not an integer or out of range"),
    (("DECRBY", "n", "-9223372036854775808"), "decrement would overflow"),
    (("INCR", "text"), "value is not an integer or out of range"),
    (("SELECT", "b" * 65), "bucket name"),
    (("SCAN", "x"), "invalid cursor"),
    (("SCAN", "12345"), "invalid cursor"),
    (("SCAN", "0", "COUNT", "0"), "syntax error"),
    (("SCAN", "0", "MATCH"), "syntax error"),
    (("CLIENT", "SETNAME", "a b"), "Client names cannot contain spaces"),
    (("CLIENT", "KILL", "x"), "unknown subcommand"),
    (("CONFIG", "SET", "save", ""), "unknown subcommand"),
    (("HELLO", "4"), "unsupported protocol version"),
    (("HELLO", "3", "AUTH", "me", "secret"), "without any password configured"),
    (("AUTH", "secret"), "without any password configured"),
]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py_gets_what_redis_would_answer(tmp_path: Path, protocol: int) -> None:
    """Each command of the table, one after the other, over both protocols."""
    async with open_doors(tmp_path) as doors:

        def converse() -> list[Any]:
            with doors.redis(protocol=protocol, single_connection_client=True) as client:
                return [client.execute_command(*command) for command, _ in CONVERSATION]

        answers = await in_thread(converse)

    assert [(command, answer) for (command, _), answer in zip(CONVERSATION, answers, strict=True)] == CONVERSATION


async def test_mistakes_get_errors_in_the_words_of_redis(tmp_path: Path) -> None:
    """A wrong command changes nothing, and its connection goes on."""
    async with open_doors(tmp_path) as doors:

        def err() -> list[str]:
            said = []
            with doors.redis(protocol=2, single_connection_client=True) as client:
                client.set("text", "x")
                for command, _ in MISTAKES:
                    with pytest.raises((redis.ResponseError, redis.AuthenticationError)) as caught:
                        client.execute_command(*command)
                    said.append(str(caught.value))
                assert client.keys() == [b"text"]
            return said

        said = await in_thread(err)

    for (command, expected), text in zip(MISTAKES, said, strict=True):
        assert expected in text, command


async def test_a_person_can_type_commands_without_any_client(tmp_path: Path) -> None:
    """Inline commands, in any case of letters, and what a connection knows of itself."""
    async with open_doors(tmp_path) as doors, await doors.connect_resp() as stream:
        await stream.send_all(b'set "a key" \'1 2\'\r\nget "a key"\nclient setname me\r\nhello 3\r\nclient getname\r\n')
        await stream.send_all(b"get nobody\r\nselect caf\xc3\xa9\r\nclient info\r\nreset\r\nclient getname\r\nquit\r\n")
        received = await read_until(stream)
    assert received.startswith(b"+OK\r\n$3\r\n1 2\r\n+OK\r\n%7\r\n$6\r\nserver\r\n$5\r\nhuton\r\n")
    assert b" name=me db=caf\xc3\xa9 resp=3 " in received
    assert b"$2\r\nme\r\n_\r\n+OK\r\n" in received
    assert received.endswith(b"\r\n+RESET\r\n$-1\r\n+OK\r\n")


async def test_every_node_takes_writes_and_reads(tmp_path: Path) -> None:
    """What one node has acknowledged, every other one returns."""
    async with open_doors(tmp_path, size=3) as doors:

        def write_and_read() -> None:
            for writer in doors.resp:
                with doors.redis(writer) as client:
                    client.set("who", writer)
                for reader in doors.resp:
                    with doors.redis(reader) as client:
                        assert client.get("who") == writer.encode()

        await in_thread(write_and_read)


async def test_set_with_get_is_atomic(tmp_path: Path) -> None:
    """Many connections swap one value: each value is taken out exactly once, as with one lock around it."""
    async with open_doors(tmp_path) as doors:
        taken: list[bytes] = []

        async def swap(who: int) -> None:
            async with await doors.connect_resp() as stream:
                for number in range(10):
                    await stream.send_all(b"SET hot %d:%d GET\r\n" % (who, number))
                    reply = await read_until(stream, b"\r\n")
                    if reply != b"$-1\r\n":
                        reply = reply.partition(b"\r\n")[2] or await read_until(stream, b"\r\n")
                    taken.append(reply.removesuffix(b"\r\n"))

        async with trio.open_nursery() as nursery:
            for who in range(6):
                nursery.start_soon(swap, who)
        last = doors.node.bucket("0").get_local(b"hot") or b""
    put = {b"%d:%d" % (who, number) for who in range(6) for number in range(10)}
    assert sorted([*taken, last]) == sorted([*put, b"$-1"])


# ------------------------------------------------------------------- pipelines

keys = st.sampled_from(["a", "b", "c"])
numbers = st.integers(-3, 3).map(str)
long_key = "k" * 401
commands = st.one_of(
    st.tuples(st.just("SET"), st.one_of(keys, st.just(long_key)), numbers),
    st.tuples(st.just("SET"), keys, numbers),
    st.tuples(st.just("SET"), keys, numbers, st.sampled_from(["NX", "XX"])),
    st.tuples(st.just("GETSET"), keys, numbers),
    st.tuples(st.just("MSET"), keys, numbers, keys, numbers),
    st.tuples(st.just("INCR"), keys),
    st.tuples(st.just("DEL"), keys, keys),
    st.tuples(st.just("GET"), st.one_of(keys, st.just(long_key))),
    st.tuples(st.just("MGET"), keys, keys),
    st.tuples(st.just("EXISTS"), keys),
    st.tuples(st.just("DBSIZE")),
    st.tuples(st.just("NONSENSE")),
)


class Model:
    """What one would write in five minutes, and what the pipeline has to amount to."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}

    def answer(self, command: tuple[str, ...]) -> object:
        name, *rest = command
        if long_key in rest or name == "NONSENSE":
            return "error"
        return getattr(self, name.lower())(*rest)

    def set(self, key: str, value: str, only_if: str = "") -> object:
        if (only_if == "NX" and key in self.data) or (only_if == "XX" and key not in self.data):
            return None
        self.data[key] = value
        return True

    def getset(self, key: str, value: str) -> object:
        old = self.get(key)
        self.data[key] = value
        return old

    def mset(self, *pairs: str) -> object:
        self.data |= dict(zip(pairs[::2], pairs[1::2], strict=True))
        return True

    def incr(self, key: str) -> object:
        self.data[key] = str(int(self.data.get(key, "0")) + 1)
        return int(self.data[key])

    def delete(self, *keys: str) -> object:
        return sum(self.data.pop(key, None) is not None for key in keys)

    def get(self, key: str) -> bytes | None:
        return self.data[key].encode() if key in self.data else None

    def mget(self, *keys: str) -> object:
        return [self.get(key) for key in keys]

    def exists(self, key: str) -> object:
        return int(key in self.data)

    def dbsize(self) -> object:
        return len(self.data)

    locals()["del"] = delete


async def test_a_pipeline_amounts_to_its_commands_one_by_one(tmp_path: Path) -> None:
    """However commands are put together on the way, effects and replies are as if each had waited for the last."""
    async with open_doors(tmp_path) as doors:

        @settings(max_examples=60)
        @given(st.lists(commands, min_size=1, max_size=40))
        def check(sent: list[tuple[str, ...]]) -> None:
            model = Model()
            with doors.redis() as client:
                client.delete("a", "b", "c")
                with client.pipeline(transaction=False) as pipeline:
                    for command in sent:
                        pipeline.execute_command(*command)
                    replies = pipeline.execute(raise_on_error=False)
            found = ["error" if isinstance(reply, redis.ResponseError) else reply for reply in replies]
            assert found == [model.answer(command) for command in sent]

        await in_thread(check)


async def test_only_the_wrong_one_of_neighbours_fails(tmp_path: Path) -> None:
    """Neighbours share a write, or a read, but not an error; and what follows them still comes after them."""
    async with open_doors(tmp_path) as doors:

        def pipe() -> list[Any]:
            with doors.redis() as client, client.pipeline(transaction=False) as pipeline:
                pipeline.incr("n").set("a", "1").set(long_key, "x").set("b", "2").delete("a").set("c", "3")
                pipeline.get("a").get(long_key).get("b").get("c").get("n")
                replies: list[Any] = pipeline.execute(raise_on_error=False)
                return replies

        replies = await in_thread(pipe)

    assert [reply if not isinstance(reply, Exception) else "error" for reply in replies] == [
        *[1, True, "error", True, 1, True],
        *[None, "error", b"2", b"3", b"1"],
    ]


async def test_a_long_pipeline_is_answered_in_order(tmp_path: Path) -> None:
    """Ten thousand commands at once, more than any of the bounds, and many more bytes than fit into a socket."""
    async with open_doors(tmp_path) as doors:

        def pipe() -> None:
            with doors.redis() as client, client.pipeline(transaction=False) as pipeline:
                for number in range(5_000):
                    pipeline.set(f"key:{number:04}", str(number) * 50)
                for number in range(5_000):
                    pipeline.get(f"key:{number:04}")
                pipeline.mget([f"key:{number:04}" for number in range(0, 5_000, 5)])
                pipeline.mset({f"key:{number:04}": "" for number in range(1_000)})
                pipeline.set("key:0000", "last").get("key:0999").get("key:0000")
                replies = pipeline.execute()
            values = [str(number).encode() * 50 for number in range(5_000)]
            assert replies == [True] * 5_000 + values + [values[::5], True, True, b"", b"last"]

        await in_thread(pipe)


async def test_a_client_that_does_not_read_is_held_back(tmp_path: Path) -> None:
    """While replies aren't taken no further command is read; once they are, all come, in order."""
    value = b"x" * 1_000_000
    count = 40
    async with open_doors(tmp_path) as doors:
        await doors.node.bucket("0").set(b"long", value)
        async with await doors.connect_resp() as stream, trio.open_nursery() as nursery:
            before = doors.node.status().commit_index

            async def ask() -> None:
                await stream.send_all(b"GET long\r\n" * count + b"INCR done\r\n")
                await stream.send_all(b"GET long\r\n" * count + b"INCR done\r\n")

            nursery.start_soon(ask)
            with trio.move_on_after(0.5):
                await until(lambda: doors.node.status().commit_index > before, "the INCR, though nobody reads")
                pytest.fail("40 MB of replies were piled up for a client that reads none")
            received = await read_until(stream, b":2\r\n")
    replies = (b"$%d\r\n%b\r\n" % (len(value), value)) * count
    assert received == replies + b":1\r\n" + replies + b":2\r\n"


PIPELINE = b"SET n 0\r\n" + b"INCR n\r\nSET m 1 NX\r\nDEL m\r\nDECR n\r\nINCR n\r\n" * 10 + b"QUIT\r\n"
IN_ORDER = (
    b"+OK\r\n" + b"".join(b":%d\r\n+OK\r\n:1\r\n:%d\r\n:%d\r\n" % (n + 1, n, n + 1) for n in range(10)) + b"+OK\r\n"
)


async def test_a_pipeline_that_waits_for_the_birth_keeps_its_order(tmp_path: Path) -> None:
    """A client may be there before the cluster is."""
    options: dict[str, Any] = {"size": 3, "ready": False, "request_timeout": 20}
    async with open_doors(tmp_path, **options) as doors, await doors.connect_resp() as stream:
        await stream.send_all(PIPELINE)
        await doors.cluster.start("n2", "n3")
        assert await read_until(stream) == IN_ORDER


async def test_a_pipeline_that_waits_for_a_leader_keeps_its_order(tmp_path: Path) -> None:
    """What is sent while nobody leads goes to the next leader, in the order in which it was sent."""
    async with open_doors(tmp_path, size=3, request_timeout=20) as doors:
        await doors.cluster.leader()
        await doors.cluster.stop("n2", "n3")
        await until(lambda: doors.node.status().leader is None, "the loss of the majority")
        async with await doors.connect_resp() as stream:
            await stream.send_all(PIPELINE)
            await doors.cluster.start("n2")
            assert await read_until(stream) == IN_ORDER


async def test_a_client_that_never_reads_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer that nobody takes is memory; it is kept for a while, not for ever."""
    monkeypatch.setattr(listening, "SEND_SECONDS", 0.05)
    async with open_doors(tmp_path) as doors:
        await doors.node.bucket("0").set(b"long", b"x" * 1_000_000)
        async with await doors.connect_resp() as silent, await doors.connect_resp() as asking:
            await silent.send_all(b"GET long\r\n" * 40)
            received = b""
            with trio.fail_after(20):
                while b"connected_clients:1\r\n" not in received:
                    await asking.send_all(b"INFO clients\r\n")
                    received = await asking.receive_some(1_000)


# ----------------------------------------------------------------- KEYS and SCAN


async def test_a_scan_finds_what_stays_exactly_once(tmp_path: Path) -> None:
    """Keys that are there all the time are found once, over changing connections, while others come and go."""
    stay = {b"%b%04d" % (b"k" * 396, number) for number in range(300)}
    async with open_doors(tmp_path) as doors:

        def scan() -> list[bytes]:
            found: list[bytes] = []
            with doors.redis() as client:
                client.mset(dict.fromkeys(stay, b"v"))
            cursor, step = 0, 0
            while step == 0 or cursor:
                with doors.redis() as client:
                    cursor, some = client.scan(cursor, count=7)
                    for name in (b"a", b"k" * 300, b"k" * 396 + b"%03db" % step, b"z"):
                        client.set(name, b"") if step % 2 else client.delete(name)
                found += some
                step += 1
            return found

        found = await in_thread(scan)

    assert len(found) == len(set(found))
    assert stay <= set(found)


async def test_a_scan_takes_patterns_and_types(tmp_path: Path) -> None:
    """MATCH narrows what is looked at by its literal beginning; TYPE knows strings only."""
    async with open_doors(tmp_path) as doors:

        def scan() -> list[list[bytes]]:
            with doors.redis() as client:
                client.mset({f"{kind}:{number}": "v" for kind in ("item", "user") for number in range(50)})
                return [
                    sorted(client.scan_iter(match="user:?")),
                    list(client.scan_iter(match="user:7")),
                    list(client.scan_iter(match="item:*", _type="hash")),
                    list(client.scan_iter(match="nobody*")),
                ]

        users, one, hashes, nobody = await in_thread(scan)

    assert users == [b"user:%d" % number for number in range(10)]
    assert (one, hashes, nobody) == ([b"user:7"], [], [])


async def test_keys_looks_at_a_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it KEYS is an error that says what to do; a pattern's beginning narrows what is looked at."""
    monkeypatch.setattr(resp_data, "KEYS_MAX", 10)
    async with open_doors(tmp_path) as doors:

        def ask() -> None:
            with doors.redis() as client:
                client.mset({f"{kind}{number}": "v" for kind in "ab" for number in range(8)})
                assert len(client.keys("a*")) == 8
                with pytest.raises(redis.ResponseError, match="use SCAN"):
                    client.keys("*1")

        await in_thread(ask)


async def test_a_cursor_belongs_to_its_bucket(tmp_path: Path) -> None:
    """A cursor that was never given out here is refused, instead of passing over keys in silence."""
    async with open_doors(tmp_path) as doors:

        def scan() -> None:
            with doors.redis(single_connection_client=True) as client:
                client.mset({f"k{number}": "v" for number in range(50)})
                cursor, first = client.scan(0)
                assert client.scan(cursor)[1] == client.scan(cursor)[1] != first
                client.execute_command("SELECT", "users")
                with pytest.raises(redis.ResponseError, match="invalid cursor"):
                    client.scan(cursor)

        await in_thread(scan)


# -------------------------------------------------------------------- redis-tools


def run_tool(*command: object) -> Callable[[], subprocess.CompletedProcess[str]]:
    words = [str(word) for word in command]
    return lambda: subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@needs_redis_tools
async def test_redis_cli_works(tmp_path: Path) -> None:
    """A person's first minute: redis-cli, in both protocols, with its own questions at the start."""
    async with open_doors(tmp_path) as doors:
        port = doors.resp["n1"].port
        for option in ("-2", "-3"):
            done = await in_thread(run_tool("redis-cli", option, "-p", port, "SET", "ada", "1815"))
            assert (done.stdout, done.stderr) == ("OK\n", "")
            done = await in_thread(run_tool("redis-cli", option, "-p", port, "GET", "ada"))
            assert done.stdout == "1815\n"
        done = await in_thread(run_tool("redis-cli", "-p", port, "--scan"))
        assert done.stdout == "ada\n"
        done = await in_thread(run_tool("redis-cli", "-p", port, "INFO", "huton"))
        assert "role:leader" in done.stdout


@needs_redis_tools
async def test_redis_benchmark_works(tmp_path: Path) -> None:
    """Its warm-up questions are answered, and every reply is right, with and without pipelines."""
    async with open_doors(tmp_path) as doors:
        port = doors.resp["n1"].port
        for depth in (1, 16):
            command = ["redis-benchmark", "-p", port, "-n", 500, "-c", 5, "-P", depth, "-q"]
            done = await in_thread(run_tool(*command, "-t", "ping,set,get,incr,mset"))
            assert done.returncode == 0, done
            assert done.stderr == ""
            assert done.stdout.count("requests per second, p50") == 6
            assert "rror" not in done.stdout


# ------------------------------------------------------------------- bad clients


@pytest.mark.parametrize(
    ("noise", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", b"-ERR Protocol error: expected '*', got '\\x16'\r\n"),
        (b"\x16" * 500_000, b"-ERR Protocol error: expected '*', got '\\x16'\r\n"),
        (b"*1\r\n$999999999\r\n", b"-ERR Protocol error: invalid bulk length"),
        (b"PING\r\n*1\r\n$4\r\nPING!\r\n", b"+PONG\r\n-ERR Protocol error: expected CRLF"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a b\r\n", b"-ERR this port speaks the redis protocol, not HTTP\r\n"),
        (b"QUIT\r\nSET a b\r\n", b"+OK\r\n"),
    ],
)
async def test_noise_closes_its_own_connection_only(tmp_path: Path, noise: bytes, answer: bytes) -> None:
    """The answer says why, nothing after it is carried out, and others go on."""
    async with open_doors(tmp_path) as doors, await doors.connect_resp() as other:
        await other.send_all(b"PI")
        async with await doors.connect_resp() as stream:
            await stream.send_all(noise)
            assert (await read_until(stream)).startswith(answer)
        await other.send_all(b"NG\r\nEXISTS a\r\n")
        assert await read_until(other, b"0\r\n") == b"+PONG\r\n:0\r\n"


async def test_a_client_that_stops_in_the_middle_of_a_command_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has sent so far is memory; between commands a connection may be idle as long as it likes."""
    monkeypatch.setattr(resp, "PARTIAL_SECONDS", 0.05)
    async with open_doors(tmp_path) as doors, await doors.connect_resp() as idle, await doors.connect_resp() as slow:
        await idle.send_all(b"PING\r\n")
        assert await read_until(idle, b"\r\n") == b"+PONG\r\n"
        await slow.send_all(b"*2\r\n$3\r\nGET\r\n$5\r\nab")
        assert await read_until(slow) == b""
        await idle.send_all(b"PING\r\n")
        assert await read_until(idle, b"\r\n") == b"+PONG\r\n"


async def test_one_connection_too_many_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets an error at once, and a place as soon as there is one."""
    monkeypatch.setattr(resp, "CONNECTIONS_MAX", 1)
    async with open_doors(tmp_path) as doors:
        async with await doors.connect_resp() as first:
            await first.send_all(b"PING\r\n")
            await read_until(first, b"\r\n")
            async with await doors.connect_resp() as second:
                assert await read_until(second) == b"-ERR max number of clients reached\r\n"
        with trio.fail_after(20):
            answer = b""
            while answer != b"+PONG\r\n":
                async with await doors.connect_resp() as third:
                    await third.send_all(b"PING\r\n")
                    answer = await third.receive_some(100)


# ------------------------------------------------------------------- no quorum


async def test_a_node_without_a_cluster_says_so(tmp_path: Path) -> None:
    """NOLEADER: nothing was written; try again later. What needs no cluster works all the same."""
    options: dict[str, Any] = {"size": 3, "ready": False, "request_timeout": 0.2}
    async with open_doors(tmp_path, **options) as doors, await doors.connect_resp() as stream:
        await stream.send_all(b"SET a 1\r\nGET a\r\nINCR a\r\nDBSIZE\r\nPING\r\nINFO huton\r\n")
        received = await read_until(stream, b"cluster_id:\r\n\r\n")
    lines = received.split(b"\r\n")
    assert all(line.startswith(b"-NOLEADER ") for line in lines[:4])
    assert lines[4] == b"+PONG"
    assert b"role:unborn" in lines


async def test_a_write_whose_end_nobody_knows_says_so(tmp_path: Path) -> None:
    """OUTCOMEUNKNOWN: a leader that has lost its followers appended it, and can't say what becomes of it."""
    async with open_doors(tmp_path, size=3, request_timeout=0.5) as doors:
        leader = await doors.cluster.leader()
        await doors.cluster.node(leader).bucket("b").set(b"k", b"its session begins")
        await doors.cluster.stop(*[name for name in doors.cluster.names if name != leader])
        async with await doors.connect_resp(leader) as stream:
            await stream.send_all(b"SET a 1\r\n")
            assert (await read_until(stream, b"\r\n")).startswith(b"-OUTCOMEUNKNOWN ")
