"""Plain HTTP, as curl speaks it, and what the gateway answers."""

from __future__ import annotations

import http.client
import json
import select
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

DEADLINE_S = 180
"""Generous: a busy machine takes its time for 60 MB."""
_PIECE = 1 << 16


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The ErrorInfo reason of a google.rpc.Status."""
        [reason] = [one["reason"] for one in self.json["details"] if one["@type"].endswith("google.rpc.ErrorInfo")]
        return str(reason)


def _until_answered(connection: http.client.HTTPConnection, sent: bytes) -> Iterator[bytes]:
    """A body piece by piece, no further than to an answer: who refuses it soon listens no more.

    Unencrypted only: what TLS itself says would be taken for an answer.
    """
    for start in range(0, len(sent), _PIECE):
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            return
        yield sent[start : start + _PIECE]


@dataclass(frozen=True)
class Http:
    """An HTTP client of one address.

    Args:
        port: On the loopback.
        credentials: Headers of each request.
        tls: How to encrypt; not at all when None.
    """

    port: int
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None

    def with_key(self, key: str) -> Http:
        """The same with an API key."""
        return Http(self.port, {"x-api-key": key}, self.tls)

    def with_token(self, token: str) -> Http:
        """The same with a token."""
        return Http(self.port, {"authorization": f"Bearer {token}"}, self.tls)

    def __call__(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Sends a request: bytes as they are, anything else as JSON."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if self.tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        else:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=DEADLINE_S, context=self.tls)
        told = {**self.credentials, **(headers or {})}
        try:
            if sent and self.tls is None:
                with suppress(BrokenPipeError, ConnectionResetError):  # what was answered before is still to be read
                    connection.request(method, path, _until_answered(connection, sent), {
                        "content-length": str(len(sent)), **told,
                    })  # fmt: skip
            else:
                connection.request(method, path, sent, told)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Sends a GET."""
        return self("GET", path, headers=headers)

    def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Sends a POST."""
        return self("POST", path, {} if body is None else body, headers)
