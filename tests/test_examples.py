"""The examples do what their README says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from huton.demo.children import make_children, no_child_left, wait_for

EXAMPLES: Final = Path(__file__).parent.parent / "examples"
PATIENCE: Final = 30.0


def curl(*arguments: str) -> str:
    """Return what ``curl`` prints."""
    command = ["curl", "--silent", "--show-error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_users_own_program_embeds_a_node_and_serves_http(tmp_path: Path) -> None:
    """Issue "The first cluster", 10: 'two agents, and a third process of a user's own code that embeds a node,
    joins with seed peers and serves an HTTP resource: `curl -X POST` stores, `curl` returns the text *value*.'
    """
    one, two, three = make_children(["one", "two", "three"], tmp_path)
    url = f"http://{three.http}/"
    # fmt: off
    program = [
        sys.executable, str(EXAMPLES / "embed_http.py"),
        "--name", "three", "--data-dir", str(tmp_path / "three"), "--bind", str(three.peer),
        "--peers", f"{one.peer},{two.peer}", "--port", str(three.http.port),
    ]
    # fmt: on
    with no_child_left([one, two]), three.log.open("wb") as log:
        one.start()
        two.start()
        with subprocess.Popen(program, stderr=log, env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}) as process:
            try:
                assert wait_for(lambda: curl(url) == "nothing is stored yet\n", PATIENCE), three.log_tail()

                assert curl("-X", "POST", url) == "stored\n"
                assert curl(url) == "value"
                assert one.client.get("example", b"text") == b"value"

                assert curl("--data", "another text", url) == "stored\n"
                assert curl(url) == "another text"
                assert two.client.get("example", b"text") == b"another text"

                assert curl("-i", "-X", "DELETE", url).startswith("HTTP/1.1 405 ")
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(PATIENCE)
        assert process.returncode == 0, three.log_tail()
