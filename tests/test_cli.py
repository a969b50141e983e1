"""The command line, as a person and as a script meets it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click
import pytest
import redis
from click.testing import CliRunner

from huton.cli import main
from huton.demo.children import Child, free_addresses, make_children, no_child_left, wait_for

COMMANDS: Final = ["agent", "status", "get", "set", "delete", "scan", "demo"]
PATIENCE: Final = 30.0


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A cluster of one, as a process."""
    (child,) = make_children(["solo"], tmp_path_factory.mktemp("solo"))
    with no_child_left([child]):
        child.start()
        child.wait_ready(PATIENCE)
        yield child


def huton(
    *arguments: str | bytes, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a script would."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HUTON_")}
    return subprocess.run(
        [sys.executable, "-m", "huton", *arguments],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        env={**clean, **(environment or {})},
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_examples(command: str) -> None:
    """Issue "The first cluster", 7: '`--help` that teaches.'"""
    result = CliRunner().invoke(main, [command, "--help"])

    assert result.exit_code == 0
    assert re.search(rf"Examples:\n(.*\n)* .*huton {command}", result.stdout), result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_help_of_the_whole_lists_every_command_and_every_exit_code() -> None:
    """Whoever types `huton` sees what there is and where to start."""
    text = CliRunner().invoke(main, ["--help"]).stdout

    assert sorted(main.commands) == sorted(COMMANDS)
    assert all(re.search(rf"^  {command} +\w", text, re.MULTILINE) for command in COMMANDS)
    assert [int(code) for code in re.findall(r"^ +(\d)  ", text, re.MULTILINE)] == [0, 1, 2, 3, 4]


def test_every_option_of_the_agent_is_also_a_variable() -> None:
    """Issue "The first cluster", 7: each option of the agent is also a HUTON_* variable."""
    options = [parameter for parameter in main.commands["agent"].params if isinstance(parameter, click.Option)]

    assert {option.name for option in options} == {
        "name", "bind", "advertise", "peers", "expect", "bootstrap", "data_dir", "quota_mib", "resp", "http",
        "tls_cert", "tls_key", "tls_ca", "password_file", "token_file", "insecure", "log_level",
    }  # fmt: skip
    assert all(option.envvar == f"HUTON_{option.name.upper()}" for option in options if option.name)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--name", "a b"], "name: 'a b'"),
        (["--name", "a", "--bind", "7420"], "'--bind' (env var: 'HUTON_BIND'): '7420' is not host:port"),
        (
            ["--name", "a", "--peers", "localhost:7420,other"],
            "'--peers' (env var: 'HUTON_PEERS'): 'other' is not host:port",
        ),
        (["--name", "a", "--resp", "on"], "'--resp' (env var: 'HUTON_RESP'): 'on' is neither off nor host:port"),
        (["--name", "a", "--expect", "0"], "'--expect' (env var: 'HUTON_EXPECT'): 0 is not in the range"),
        (["--name", "a", "--expect", "3"], "peers: expecting 3 members needs at least one seed peer"),
        (["--name", "a", "--expect", "3", "--bootstrap"], "--bootstrap founds a cluster of one"),
        (["--bootstrap"], "Missing option '--name'"),
        (["--name", "a"], "expect: "),
    ],
)
def test_a_wrong_configuration_is_one_clear_line_and_exit_code_two(
    arguments: list[str], complaint: str, tmp_path: Path
) -> None:
    """The last line says what is wrong with which setting, and there is no traceback."""
    result = huton("agent", "--data-dir", str(tmp_path / "data"), *arguments)

    assert result.returncode == 2
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("Error: ")
    assert complaint in last
    assert b"Traceback" not in result.stderr


def test_a_data_directory_in_use_is_one_clear_line_and_exit_code_one(agent: Child) -> None:
    """DESIGN: one process holds a lock on the data directory."""
    data = agent.directory / agent.name

    result = huton("agent", "--name", agent.name, "--data-dir", str(data), "--bind", "127.0.0.1:0", "--bootstrap")

    assert result.returncode == 1
    assert str(data) in result.stderr.decode().splitlines()[-1]
    assert b"Traceback" not in result.stderr


def test_a_taken_name_is_one_clear_line_and_exit_code_one(tmp_path: Path) -> None:
    """DESIGN: 'a second node with a taken name is refused with an error that says so.'"""
    first, second = make_children(["twin", "twin"], tmp_path)
    with no_child_left([first]):
        first.start()
        assert wait_for(lambda: "HTTP" in first.log_tail(), PATIENCE)

        result = huton(*second.arguments(), "--data-dir", str(tmp_path / "second"))

    assert result.returncode == 1
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("Error: the name 'twin' is taken")
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("option", ["bind", "resp", "http"])
def test_an_address_in_use_is_one_clear_line_that_names_it(option: str, agent: Child, tmp_path: Path) -> None:
    """The person who reads it has to know which address to change."""
    addresses = {"bind": "127.0.0.1:0", "resp": "off", "http": "off"} | {option: str(agent.http)}
    arguments = [word for name, address in addresses.items() for word in (f"--{name}", address)]

    result = huton("agent", "--name", "other", "--data-dir", str(tmp_path / "data"), "--bootstrap", *arguments)

    assert result.returncode == 2
    assert f"{option}: can't listen on {agent.http}" in result.stderr.decode().splitlines()[-1]
    assert b"Traceback" not in result.stderr


def test_the_agent_takes_everything_from_its_environment_and_stops_cleanly(tmp_path: Path) -> None:
    """Issue "The first cluster", 7: each option also as a variable, and a clean stop on SIGTERM."""
    (child,) = make_children(["env"], tmp_path)
    environment = {
        "HUTON_NAME": "env",
        "HUTON_BIND": str(child.peer),
        "HUTON_ADVERTISE": str(child.peer),
        "HUTON_PEERS": f"{child.peer}, 127.0.0.1:1",
        "HUTON_BOOTSTRAP": "1",
        "HUTON_DATA_DIR": str(tmp_path / "data"),
        "HUTON_RESP": "off",
        "HUTON_HTTP": str(child.http),
        "HUTON_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "huton", "agent"]
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE) as process:
        try:
            ask = {"HUTON_HTTP": str(child.http)}
            assert wait_for(lambda: huton("set", "k", "v", environment=ask).returncode == 0, PATIENCE)
            assert re.search(rb"^name +env$", huton("status", environment=ask).stdout, re.MULTILINE)
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert said == b"", "there is nothing to warn of"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_is_not_leaving(number: signal.Signals, tmp_path: Path) -> None:
    """A stopped agent exits with 0, stays a member, and goes on with all its data."""
    (child,) = make_children(["solo"], tmp_path)
    with no_child_left([child]):
        child.start()
        child.wait_ready(PATIENCE)
        child.client.set("0", b"k", b"v")
        before = child.client.status()

        child.signal(number)
        assert child.wait() == 0
        child.start()
        child.wait_ready(PATIENCE)

        assert child.client.get("0", b"k") == b"v"
        assert child.client.status()["cluster_id"] == before["cluster_id"]


def test_a_second_signal_ends_it_at_once_and_loses_nothing(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice doesn't want to wait; what was acknowledged is on disk all the same."""
    (child,) = make_children(["solo"], tmp_path)
    with no_child_left([child]):
        child.start()
        child.wait_ready(PATIENCE)
        child.client.set("0", b"k", b"v")

        # Stopped, it finds both when it goes on, and the clean stop can't be faster than the second.
        for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            child.signal(number)
        # Of two that wait, either may be handed over first.
        assert child.wait() in (128 + signal.SIGTERM, 128 + signal.SIGINT)
        child.start()
        child.wait_ready(PATIENCE)

        assert child.client.get("0", b"k") == b"v"


@pytest.mark.parametrize(
    ("option", "missing"),
    [
        ("--bind", "bind: 0.0.0.0:0 can be reached from other machines"),
        ("--resp", "give tls and a password"),
        ("--http", "give tls and a token"),
    ],
)
def test_an_address_beyond_loopback_has_to_be_locked(option: str, missing: str, tmp_path: Path) -> None:
    """Safe by default: whoever opens a door to the network says who may come in, or that everybody may."""
    arguments = ["agent", "--name", "a", "--data-dir", str(tmp_path / "data"), "--bootstrap", option, "0.0.0.0:0"]

    result = huton(*arguments)

    assert result.returncode == 2
    assert missing in result.stderr.decode().splitlines()[-1]
    assert not (tmp_path / "data").exists()


def test_insecure_is_possible_and_warned_of(tmp_path: Path) -> None:
    """In a network where everybody is trusted."""
    options = ["--data-dir", str(tmp_path / "data"), "--bind", "127.0.0.1:0", "--resp", "off", "--http", "0.0.0.0:0"]
    command = [sys.executable, "-m", "huton", "agent", "--name", "open", "--bootstrap", "--insecure", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        try:
            warning = next(line for line in agent.stderr if "WARNING" in line)
        finally:
            agent.terminate()
            agent.communicate(timeout=PATIENCE)

    assert "insecure" in warning


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tls-cert", "a.crt"], "--tls-cert, --tls-key and --tls-ca belong together"),
        (["--tls-cert", "a.crt", "--tls-key", "a.key", "--tls-ca", "ca.crt"], "tls_cert: a.crt: No such file"),
        (["--password-file", "missing"], "--password-file: missing can't be read"),
        (["--token-file", "/dev/null"], "--token-file: /dev/null is empty"),
    ],
)
def test_a_lock_that_is_broken_is_one_clear_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    """An agent must not run without the lock that it was told of."""
    result = huton("agent", "--name", "a", "--data-dir", str(tmp_path / "data"), "--bootstrap", *arguments)

    assert result.returncode == 2
    assert complaint in result.stderr.decode().splitlines()[-1]


def ask(agent: Child, *arguments: str | bytes, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command against *agent*."""
    return huton(*arguments, stdin=stdin, environment={"HUTON_HTTP": str(agent.http)})


def test_set_get_and_delete_of_a_key(agent: Child) -> None:
    """The round trip that a script makes; a missing key is exit code 1 and a line on standard error."""
    written = ask(agent, "set", "greeting", "hello")
    assert (written.returncode, written.stderr) == (0, b"")
    assert re.fullmatch(rb"revision \d+\n", written.stdout)

    read = ask(agent, "get", "greeting")
    assert (read.returncode, read.stdout, read.stderr) == (0, b"hello", b"")

    gone = ask(agent, "delete", "greeting")
    assert (gone.returncode, gone.stdout, gone.stderr) == (0, b"", b"")

    for command in ("get", "delete"):
        missing = ask(agent, command, "greeting")
        assert (missing.returncode, missing.stdout) == (1, b"")
        assert missing.stderr == b"Error: no key 'greeting' in bucket '0'\n"


@pytest.mark.parametrize("value", [b"", b"\n", bytes(range(256)), b"-", "grüße".encode(), b"x" * 100_000])
def test_a_value_from_standard_input_comes_out_byte_for_byte(value: bytes, agent: Child) -> None:
    """An empty value is a value, and no byte is added or lost."""
    assert ask(agent, "set", "bytes", "-", stdin=value).returncode == 0

    read = ask(agent, "get", "bytes")

    assert (read.returncode, read.stdout) == (0, value)


@pytest.mark.parametrize("key", ["a/b", "a b", "%41", "?x=1#y", "..", "grüße", os.fsdecode(b"\xff\x01")])
def test_any_bytes_are_a_key(key: str, agent: Child) -> None:
    """A key is bytes; nothing in it may be taken for a part of a path."""
    assert ask(agent, "set", "--bucket", "odd keys", key, f"value of {key!a}").returncode == 0

    assert ask(agent, "get", "--bucket", "odd keys", key).stdout == f"value of {key!a}".encode()
    assert agent.client.get("odd keys", os.fsencode(key)) == f"value of {key!a}".encode()


def test_scan_prints_a_line_for_each_key_in_order(agent: Child) -> None:
    """Keys are ordered by their bytes, and each stays on its line whatever is in it."""
    for key, value in [("user/b", "tab\there"), ("user/a", "back\\slash"), ("user/c\n", "grüße"), ("other", "-")]:
        assert ask(agent, "set", "--bucket", "scanned", key, "-", stdin=value.encode()).returncode == 0

    lines = ask(agent, "scan", "--bucket", "scanned", "user/").stdout.decode().splitlines()

    assert lines == ["user/a\tback\\x5cslash", "user/b\ttab\\x09here", "user/c\\x0a\tgrüße"]
    assert ask(agent, "scan", "--bucket", "scanned", "--keys").stdout.decode().split() == [
        "other", "user/a", "user/b", "user/c\\x0a",
    ]  # fmt: skip
    assert ask(agent, "scan", "--bucket", "scanned", "user/", "--limit", "1", "--keys").stdout == b"user/a\n"
    assert ask(agent, "scan", "--bucket", "scanned", "nobody").stdout == b""


def test_scan_goes_on_over_many_pages(agent: Child) -> None:
    """A bucket of more keys than one answer holds is listed whole."""
    written = {f"{n:05d}".encode(): b"%d" % n for n in range(2_500)}
    with redis.Redis(agent.resp.host, agent.resp.port) as server:
        server.execute_command("SELECT", "7")
        server.mset(written)

    assert {pair.key: pair.value for pair in agent.client.scan("7")} == written
    assert [pair.key for pair in agent.client.scan("7", limit=1_700)] == sorted(written)[:1_700]


def test_a_limit_that_is_broken_is_exit_code_two(agent: Child) -> None:
    """The agent says which limit, and the script can tell that from 'no such key'."""
    refused = ask(agent, "set", "k" * 401, "v")

    assert refused.returncode == 2
    assert b"400" in refused.stderr


def test_status_says_who_leads(agent: Child) -> None:
    """A person sees the node's name, role, term, leader and members."""
    lines = ask(agent, "status").stdout.decode().splitlines()

    said = {line.split()[0]: line.split()[1:] for line in lines}
    assert said["name"] == ["solo"]
    assert said["role"] == ["leader"]
    assert said["leader"] == ["solo"]
    assert said["members"] == ["solo", str(agent.peer), "leader"]
    assert int(said["committed"][0]) >= int(said["applied"][0]) > 0


def test_nobody_at_the_address_is_exit_code_three() -> None:
    """A script can tell 'no such key' from 'nobody to ask', and nothing was written."""
    (address,) = free_addresses(1)

    for command in (["get", "k"], ["set", "k", "v"], ["delete", "k"], ["scan"], ["status"]):
        result = huton(*command, "--address", str(address))
        assert result.returncode == 3, result
        assert result.stderr.decode().startswith(f"Error: nobody answers at {address}")


def test_no_majority_is_exit_code_three(tmp_path: Path) -> None:
    """One of three that were born together can't serve alone, and says so within the request timeout."""
    children = make_children(["a", "b", "c"], tmp_path)
    with no_child_left(children):
        for child in children:
            child.start()
        for child in children:
            child.wait_ready(PATIENCE)
        for child in children[1:]:
            child.kill()

        environment = {**os.environ, "HUTON_HTTP": str(children[0].http)}
        with subprocess.Popen([sys.executable, "-m", "huton", "get", "k"], env=environment) as read:
            written = ask(children[0], "set", "k", "v")

        assert read.returncode == 3
        assert written.returncode in (3, 4)
        assert ask(children[0], "status").returncode == 0
