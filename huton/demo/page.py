"""What the demo prints: plain text, with colour and symbols where the terminal shows them."""

from __future__ import annotations

import os
import sys

import click

__all__ = ["Page"]


class Page:
    """Lines on standard output. Colour is never the only sign, and is left out where it can't be seen."""

    def __init__(self) -> None:
        # click drops colour by itself when standard output is no terminal; NO_COLOR is ours to honour.
        self._colour = False if os.environ.get("NO_COLOR") else None
        fancy = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
        self._tick, self._full, self._empty = ("✓", "█", "·") if fancy else ("ok", "#", ".")

    def title(self, text: str) -> None:
        """Print the headline of a chapter."""
        click.echo()
        self._echo(click.style(text, bold=True))

    def line(self, text: str = "") -> None:
        """Print a line of a chapter."""
        self._echo(f"  {text}" if text else "")

    def done(self, text: str) -> None:
        """Print something that was checked and holds."""
        self._echo(f"  {click.style(self._tick, fg='green', bold=True)} {text}")

    def aside(self, text: str) -> None:
        """Print something that may be skipped in reading."""
        self._echo("    " + click.style(text, dim=True))

    def command(self, text: str) -> None:
        """Print a command to copy."""
        self._echo("    " + click.style(text, fg="cyan"))

    def mark(self, *, full: bool) -> None:
        """Print one mark of a strip, without a new line."""
        self._echo(self._full if full else self._empty, newline=False)

    def text(self, text: str, *, newline: bool = False) -> None:
        """Print *text* as it is."""
        self._echo(text, newline=newline)

    def _echo(self, text: str, *, newline: bool = True) -> None:
        click.echo(text, nl=newline, color=self._colour)
        sys.stdout.flush()
