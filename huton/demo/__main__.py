"""One child of the demo: the command ``huton``, which also ends when its standard input does.

The parent holds the other end of that pipe and never writes to it. However the parent dies, by SIGKILL
too, the system closes its end: no child is left behind. (A real agent must not do this: a service
manager gives it an empty standard input.)
"""

from __future__ import annotations

import os
import runpy
import signal
import threading
import time
from typing import Final

__all__: list[str] = []

GRACE: Final = 5.0
"""Seconds a child has for a clean stop once its parent is gone."""


def end_with_parent() -> None:
    """Wait for the end of standard input, then stop this process: cleanly, or after ``GRACE`` at once."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, name="end-with-parent", daemon=True).start()
    runpy.run_module("huton", run_name="__main__", alter_sys=True)
