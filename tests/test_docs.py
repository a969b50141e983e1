"""What the pages show is what happens: every example is run as it is written, and every link leads somewhere.

A page is run from top to bottom in one directory and one shell, on free ports, by these conventions:

- ``sh``: commands that succeed. A block that starts or kills agents is followed by a wait until
  those that run serve.
- ``console``: commands after ``$``, and between them all that they print.
- ``python``: a program that ends well.
- ``text`` after a line that ends in "prints:": the standard output of the block before it. ``…`` stands for
  anything within a line, and alone on a line for any lines.

Whatever is none of these has to be listed in ``NOT_RUN``, with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import attrs
import pytest

from huton.client import Client, Unreachable
from huton.config import load_client_tls, parse_address
from huton.demo.children import free_addresses, wait_for
from huton.errors import HutonError
from huton.raft.core import HANDLERS

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))]
"""The pages whose examples are run."""

LINKED: Final = [*PAGES, "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"]
"""The pages whose links are followed."""

DEMO: Final = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/huton demo"
CHECKS: Final = "python3 -m venv .venv-test && .venv-test/bin/pip install nox && .venv-test/bin/nox"

INSTALL: Final = "python3 -m venv .venv && .venv/bin/pip install ."
A_PAGE: Final = (
    '{"entries": [{"key": "ada", "value": "1815", "create_revision": 7, "mod_revision": 7, "version": 1}], '
    '"more": false}'
)

NOT_RUN: Final = {
    ("README.md", DEMO): "it installs from the network; the same demo is run by tests/test_demo.py",
    ("README.md", CHECKS): "it is what runs this test: .ci/run calls it",
    ("README.md", "huton/"): "a map; another test looks up every name in it",
    ("docs/tutorial.md", INSTALL): "it installs from the network, as the first of the two commands",
    ("docs/frontends.md", A_PAGE): "the form of an answer; tests/frontends/test_http.py has real ones",
    ("docs/frontends.md", "{"): "the form of an answer; tests/frontends/test_http.py has real ones",
}
"""Blocks by page and first line, and why they are not run."""

AGENT: Final = "huton agent --name one --data-dir data/one --bootstrap --log-level warning &"

TAKEN_FOR_GRANTED: Final = {"docs/frontends.md": AGENT}
"""What a page does not say because it is about something else: run before its first block."""

PORTS: Final = ("7420", "7421", "7422", "7430", "7431", "7432", "7440", "7441", "7442", "8080")
"""The ports that pages speak of; free ones take their places. The first three are the defaults of an agent."""

TOOLS: Final = ("redis-cli", "curl")
PATIENCE: Final = 60.0
"""Seconds that one command may take."""


@attrs.frozen
class Block:
    """One fenced block of a page.

    Attributes:
        lead: the last line of text before it.
    """

    page: str
    line: int
    language: str
    lead: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        return self.page, self.text.split("\n", 1)[0]

    @property
    def is_output(self) -> bool:
        return self.language == "text" and self.lead.rstrip().endswith("prints:")

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language}: {self.key[1]!r})"


def blocks_of(page: str) -> list[Block]:
    return blocks_in(page, (ROOT / page).read_text())


def blocks_in(page: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page's *text*."""
    blocks, lead, opened, language = [], "", 0, ""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("```") and not opened:
            opened, language, lines = number, line[3:].strip(), []
        elif line == "```":
            blocks.append(Block(page, opened, language, lead, "\n".join(lines)))
            opened = 0
        elif opened:
            lines.append(line)
        elif line.strip():
            lead = line
    assert not opened, f"{page}:{opened}: a block without an end"
    return blocks


def problem_of(block: Block, before: Block | None) -> str | None:
    """Say why *block*, which follows *before*, is neither run nor listed, or None if it is."""
    listed = block.key in NOT_RUN
    if block.is_output:
        fits = before is not None and before.language in ("sh", "python") and before.key not in NOT_RUN
        return None if fits and not listed else f"{block}: the output of nothing that is run"
    if listed or block.language in ("sh", "console", "python"):
        return None
    return f"{block}: neither run nor listed in NOT_RUN with a reason"


def pattern_of(expected: str) -> re.Pattern[str]:
    """Return what *expected* output stands for, ``…`` and all."""
    pattern = re.escape(expected.strip()).replace("\\\n", "\n")
    pattern = re.sub(r"(?m)^…$", "(?:.*\n?)*?.*", pattern)
    return re.compile(pattern.replace("…", ".*"))


class Shell:
    """One shell that a page's blocks are given to, in a directory of its own and on ports of its own."""

    def __init__(self, directory: Path) -> None:
        self._files = directory / "shell"
        self.home = directory / "home"
        self._files.mkdir()
        self.home.mkdir()
        self._ports = dict(zip(PORTS, (str(each.port) for each in free_addresses(len(PORTS))), strict=True))
        for name, words in (("huton", "-m huton"), ("python", "")):
            command = self._files / name
            command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
            command.chmod(0o755)
        # Progress is for a terminal, and there curl shows none for so little.
        (self._files / ".curlrc").write_text("silent\nshow-error\n")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HUTON_", "COV"))}
        defaults = dict(zip(("HUTON_BIND", "HUTON_RESP", "HUTON_HTTP"), PORTS, strict=False))
        self.environment = {
            **inherited,
            **{name: f"127.0.0.1:{self._ports[port]}" for name, port in defaults.items()},
            "PATH": f"{self._files}{os.pathsep}{inherited['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CURL_HOME": str(self._files),
        }
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.home,
            env=self.environment,
            text=True,
            start_new_session=True,
        )

    def here(self, text: str) -> str:
        """Return *text* with the ports of this shell."""
        return re.sub(rf"\b(?:{'|'.join(PORTS)})\b", lambda match: self._ports[match[0]], text)

    def run(self, commands: str) -> tuple[str, str, bool]:
        """Run *commands*; return what they printed on standard output and error, and whether all succeeded."""
        script, out, err, failed, done = (self._files / name for name in ("script", "out", "err", "failed", "done"))
        done.unlink(missing_ok=True)
        # A name of their own for each: agents that were left running go on writing to theirs.
        for file in (out, err, failed):
            file.unlink(missing_ok=True)
        failed.touch()
        trap = f"trap 'echo \"$BASH_COMMAND\" >>{shlex.quote(str(failed))}' ERR"
        script.write_text(f"{trap}\n{commands}\ntrap - ERR\n")
        assert self._process.stdin is not None
        self._process.stdin.write(
            f"source {shlex.quote(str(script))} </dev/null >{shlex.quote(str(out))} 2>{shlex.quote(str(err))}\n"
            f"touch {shlex.quote(str(done))}\n"
        )
        self._process.stdin.flush()
        assert wait_for(lambda: done.exists() or self._process.poll() is not None, PATIENCE), (
            f"not done after {PATIENCE:g} s:\n{commands}\n{err.read_text()}"
        )
        assert self._process.poll() is None, f"the shell ended:\n{commands}\n{err.read_text()}"
        return out.read_text(), err.read_text(), not failed.read_text()

    def close(self) -> None:
        """Stop what was left running, and the shell."""
        assert self._process.stdin is not None
        try:
            self._process.communicate("trap - ERR; jobs -p | xargs -r kill; wait; exit\n", timeout=20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def open_shell(directory: Path) -> Iterator[Shell]:
    shell = Shell(directory)
    try:
        yield shell
    finally:
        shell.close()


def wait_for_agents(shell: Shell, commands: str) -> None:
    """Wait until every agent that *commands* started answers, as a reader would before the next block."""
    for command in commands.replace("\\\n", " ").splitlines():
        if not re.match(r"\s*huton agent .*&\s*$", command):
            continue
        option = re.search(r"--http[ =](\S+)", command)
        address = parse_address(option[1] if option else shell.environment["HUTON_HTTP"])
        client = Client(address)
        if "--tls-ca" in command:
            token = (shell.home / "token").read_text().strip()
            client = Client(address, load_client_tls(shell.home / "ca.crt"), token)

        def serves(client: Client = client) -> bool:
            try:
                client.get("0", b"ready?")
            except HutonError:
                return False
            return True

        assert wait_for(serves, PATIENCE, pause=0.1), f"does not serve: {command}"


def wait_for_survivors(shell: Shell) -> None:
    """Wait until all agents that are still there serve again: those that lost their leader have found another."""

    def serves(client: Client) -> bool:
        try:
            client.get("0", b"ready?")
        except Unreachable:
            pass  # This is the one that was stopped.
        except HutonError:
            return False
        return True

    for port in PORTS[2::3]:
        client = Client(parse_address(f"127.0.0.1:{shell.here(port)}"))
        assert wait_for(partial(serves, client), PATIENCE, pause=0.1), f"{port} does not serve any more"


def run_block(shell: Shell, block: Block, output: Block | None) -> None:
    """Run *block*, and compare what it prints with *output*, if that is given."""
    if block.language == "console":
        run_session(shell, block)
        return
    if block.language == "python":
        program = shell.home / "program.py"
        program.write_text(shell.here(block.text) + "\n")
        commands = "python program.py"
    else:
        commands = shell.here(block.text)
    out, err, succeeded = shell.run(commands)
    assert succeeded, f"{block} failed:\n{out}\n{err}"
    wait_for_agents(shell, commands)
    if "kill" in commands:
        wait_for_survivors(shell)
    if output is not None:
        expected = shell.here(output.text)
        assert pattern_of(expected).fullmatch(out.strip()), f"{block} printed\n{out}\nand not\n{expected}\n{err}"


def run_session(shell: Shell, block: Block) -> None:
    """Run a ``console`` block, command by command."""
    assert block.text.startswith("$ "), f"{block} does not begin with a command"
    for part in re.split(r"(?m)^\$ ", shell.here(block.text))[1:]:
        match = re.match(r"((?:.*\\\n)*.*)\n?", part)
        assert match is not None
        out, err, _ = shell.run(match[1])
        expected = part[match.end() :]
        assert pattern_of(expected).fullmatch((out + err).strip()), f"{block}: $ {match[1]}\nprinted\n{out}{err}"


# ------------------------------------------------------------------- examples


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_what_happens(page: str, tmp_path: Path) -> None:
    """Every example of a page, from the first to the last, as a reader would try them."""
    blocks = blocks_of(page)
    problems = [problem_of(block, before) for block, before in zip(blocks, [None, *blocks], strict=False)]
    assert not [problem for problem in problems if problem]
    run = [block for block in blocks if block.key not in NOT_RUN and not block.is_output]
    if not run:
        return
    for tool in TOOLS:
        if any(tool in block.text for block in run) and shutil.which(tool) is None:
            pytest.skip(f"{page} shows {tool}, which is not installed")
    outputs = {id(before): block for before, block in pairwise(blocks) if block.is_output}
    with open_shell(tmp_path) as shell:
        if page in TAKEN_FOR_GRANTED:
            run_block(shell, Block(page, 0, "sh", "", TAKEN_FOR_GRANTED[page]), None)
        for block in run:
            run_block(shell, block, outputs.get(id(block)))


def test_every_block_that_is_not_run_is_there() -> None:
    """A reason for a block that is gone would hide the next one that begins like it."""
    there = {block.key for page in PAGES for block in blocks_of(page)}

    assert [key for key in NOT_RUN if key not in there] == []


def test_a_block_that_nobody_listed_is_noticed() -> None:
    """The check of the pages, checked: an unknown language, no language, and an output without a program."""
    page = "```toml\na = 1\n```\n\n```\nanything\n```\n\nIt prints:\n\n```text\nhello\n```\n\n```sh\ntrue\n```\n"
    blocks = blocks_in("page.md", page)

    problems = [problem_of(block, before) is not None for block, before in zip(blocks, [None, *blocks], strict=False)]

    assert problems == [True, True, True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        Block("page.md", 1, "sh", "", "true\nfalse\ntrue"),
        Block("page.md", 1, "python", "", "raise SystemExit(1)"),
        Block("page.md", 1, "console", "", "$ echo one\none\n$ echo two\nthree"),
        Block("page.md", 1, "console", "", "$ echo one >&2"),
    ],
)
def test_an_example_that_fails_is_noticed(wrong: Block, tmp_path: Path) -> None:
    """The runner, checked: a command or a program that fails, and an output that is another one."""
    with open_shell(tmp_path) as shell:
        run_block(
            shell, Block("page.md", 1, "console", "", "$ echo one; echo two\no…e\ntwo\n$ echo a; echo b\n…"), None
        )
        with pytest.raises(AssertionError):
            run_block(shell, wrong, None)


def test_another_output_is_noticed(tmp_path: Path) -> None:
    """The runner, checked: what a block prints has to be what the page says, all of it."""
    block = Block("page.md", 1, "python", "", "print(1)\nprint(2)")
    with open_shell(tmp_path) as shell:
        run_block(shell, block, Block("page.md", 5, "text", "It prints:", "1\n…"))
        for other in ("1", "1\n3", "2"):
            with pytest.raises(AssertionError):
                run_block(shell, block, Block("page.md", 5, "text", "It prints:", other))


def test_the_two_commands_stand_in_the_readme_each_on_a_line_of_its_own() -> None:
    """Issue "The first cluster", 2: 'Two commands in the README, each one line, independent of each other.'"""
    for command in (DEMO, CHECKS):
        assert [block.language for block in blocks_of("README.md") if block.text == command] == ["sh"]
    assert CHECKS in (ROOT / ".ci/run").read_text().splitlines()


# ---------------------------------------------------------------------- links


def links_of(page: str) -> list[str]:
    """Return the targets of a page's links, without those that leave the project."""
    text = re.sub(r"(?ms)^```.*?^```$", "", (ROOT / page).read_text())
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings get."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links_of(page: str) -> list[str]:
    dead = []
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", LINKED)
def test_every_link_leads_somewhere(page: str) -> None:
    """Relative links, and their anchors; what lies outside of the project is not asked for."""
    assert dead_links_of(page) == []


@pytest.mark.parametrize("page", LINKED)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    """`huton/raft/reads.py` names a file, `huton/raft/reads.py::open_round` something that it defines."""
    text = (ROOT / page).read_text()
    for path, name in re.findall(r"`((?:huton|docs|tests|examples|sim)/[\w./-]*)(?:::(\w+))?`", text):
        file = ROOT / path
        assert file.exists(), f"{page} names {path}, which is not there"
        if name:
            assert re.search(rf"(?m)^\s*(?:async )?(?:def |class )?{name}\b[ (:=]", file.read_text()), (
                f"{page} names {name}, which {path} does not define"
            )


def test_the_map_in_the_readme_is_the_house() -> None:
    """Every room is on the map, and nothing else."""
    (house,) = (block for block in blocks_of("README.md") if block.key == ("README.md", "huton/"))
    named = {word for line in house.text.splitlines()[1:] for word in line[:40].split()}

    rooms = {path.name + ("/" if path.is_dir() else "") for path in (ROOT / "huton").iterdir()}
    rooms -= {"__init__.py", "__main__.py", "__pycache__/", "py.typed"}
    assert named == rooms


# --------------------------------------------------------------------- tables


def test_the_table_of_the_core_is_the_one_on_the_page() -> None:
    """docs/raft.md shows every cell of ``HANDLERS``, in order, by the name of its handler."""
    page = (ROOT / "docs/raft.md").read_text()
    lines = page[page.index("| event | follower |") :].split("\n\n", 1)[0].splitlines()[2:]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    assert shown == [[event.__name__, *(cell.__name__ for cell in row)] for event, row in HANDLERS.items()]


def test_the_glossary_is_in_order_and_names_nothing_twice() -> None:
    """A word is found where the alphabet has it."""
    terms = re.findall(r"(?m)^\*\*(.+?)\.\*\*", (ROOT / "docs/glossary.md").read_text())
    letters = [re.sub(r"[^a-z]", "", term.lower()) for term in terms]

    assert len(terms) > 50
    assert letters == sorted(set(letters))
