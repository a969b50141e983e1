"""``python -m huton`` is the command ``huton``."""

from __future__ import annotations

from huton.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="huton")
