"""How many connections a server has, how many calls come over one, and what of them comes unasked: none takes a token.

The gateway has the same bounds of the first two; here they hold for who comes without it.
"""

from __future__ import annotations

import resource

MOST = 4096
"""Connections at a time; what is beyond is closed as soon as it is opened."""
STREAMS = 256
"""Calls in progress over one connection, those that were cut off and not yet looked at among them. Without a limit four
connections that open calls and cut them off at once had gRPC throw away other callers' calls (CANCELLED)."""
UNASKED_BYTES = 1 << 20
"""What a caller may send before it is asked for, in each call: a photo. What gRPC itself finds best may be 16 MB, and
of that forty calls took detection 4 GB."""
IDLE_S = 900
"""How long a connection without calls is kept: callers may be gone without a word."""


def options(calls: int) -> list[tuple[str, int]]:
    """The options of a gRPC server; the process may open as many files from now on as the system lets it.

    Args:
        calls: Calls that the service has in progress at a time: one connection may bring them all, as a gateway's does.
    """
    # The usual soft limit, 1,024, is there for select(2), which nothing here calls.
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    return [
        ("grpc.max_allowed_incoming_connections", min(MOST, files // 2)),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", UNASKED_BYTES),
        ("grpc.max_concurrent_streams", max(STREAMS, calls)),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
    ]
