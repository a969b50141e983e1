"""A user's program, as mypy --strict sees it against the installed package."""

from __future__ import annotations

from pathlib import Path

import trio

import huton


async def main() -> None:
    config = huton.Config(name="a", data_dir=Path("data"), peers=("127.0.0.1:7421",), expect=2)
    async with huton.open_node(config) as node:
        await node.wait_ready()
        users = node.bucket("users")
        revision: int = await users.set(b"ada", b"1815")
        value: bytes | None = await users.get(b"ada")
        local: bytes | None = users.get_local(b"ada")
        entry: huton.KeyValue | None = await users.get_entry(b"ada")
        try:
            await users.compare_and_set(b"ada", b"1852", expected_revision=revision)
        except huton.CompareFailed as error:
            print(error.code)
        except (huton.NoLeader, huton.Overloaded, huton.OutcomeUnknown) as error:
            print(error)
        for item in await users.scan(prefix=b"a", limit=10):
            print(item.key, item.value, item.mod_revision)
        deleted: int = await users.delete(b"ada", b"bob")
        status: huton.NodeStatus = node.status()
        print(status.role, status.leader, [member.name for member in node.members()])
        print(value, local, entry, deleted)


if __name__ == "__main__":
    trio.run(main)
