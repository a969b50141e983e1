"""Doors for clients that speak another language: redis' protocol and HTTP.

They see only the public ``Node`` and ``Env``. What a client sends is parsed without I/O in
``resp_protocol`` and by h11; one connection's mistakes close that connection and nothing else.
"""

from __future__ import annotations

__all__: list[str] = []
