"""The little of Kubernetes' API that a rollout needs: one resource read, and applied by the server."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from facetmesh.kit.errors import Aborted, FacetmeshError, FailedPrecondition, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD_MANAGER = "facetmesh-rollout"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """Where the API server is, and who asks; as every pod with a service account is told, unless said otherwise."""

    url: str = "https://kubernetes.default.svc"
    token_file: Path = _ACCOUNT / "token"
    """Read before each request: the token changes."""
    ca_file: Path = _ACCOUNT / "ca.crt"
    """PEM of the authority of the server's certificate."""


class Resources:
    """Resources of an API server.

    Args:
        account: Where it is, and who asks.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))
        self._tls = ssl.create_default_context(cafile=account.ca_file)

    async def get(self, path: str) -> dict[str, Any]:
        """A resource.

        Args:
            path: Such as /apis/networking.istio.io/v1/namespaces/NAMESPACE/virtualservices/NAME.

        Raises:
            NotFound: There is none.
            FailedPrecondition: KUBERNETES_REFUSED: the account may not, or the server does not like it.
            Unavailable: KUBERNETES_UNAVAILABLE: the server does not answer.
        """
        return await self._ask("GET", path)

    async def apply(self, path: str, fields: Mapping[str, Any]) -> None:
        """Has the server make these fields of a resource so; they are this field manager's from then on.

        Raises:
            Aborted: It has changed since the metadata.resourceVersion that was given.
            FailedPrecondition: KUBERNETES_REFUSED.
            Unavailable: KUBERNETES_UNAVAILABLE.
        """
        await self._ask(
            "PATCH", f"{path}?fieldManager={FIELD_MANAGER}&force=true", json.dumps(fields).encode(),
            {"Content-Type": "application/apply-patch+yaml"},
        )  # fmt: skip

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def _ask(
        self, verb: str, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            token = self._account.token_file.read_text().strip()
            sent = {**(headers or {}), "Authorization": f"Bearer {token}"}
            async with self._session.request(
                verb, self._account.url + path, data=data, headers=sent, ssl=self._tls
            ) as answer:
                text = await answer.text()
            if not answer.ok:
                raise _problem(answer.status, text)
            found: dict[str, Any] = json.loads(text)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: it is no API server that answers
            raise Unavailable(
                f"The API server cannot be asked: {type(error).__name__}.", reason="KUBERNETES_UNAVAILABLE"
            ) from error
        return found


def _problem(status: int, text: str) -> FacetmeshError:
    told = f"The API server says {status}: {text[:300]}"
    if status == HTTPStatus.CONFLICT:
        return Aborted(told)
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(told, reason="KUBERNETES_NOT_FOUND")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return Unavailable(told, reason="KUBERNETES_UNAVAILABLE")
    return FailedPrecondition(told, reason="KUBERNETES_REFUSED")
