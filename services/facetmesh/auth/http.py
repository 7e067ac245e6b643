"""The keys that verify tokens, over HTTP: for gateways and meshes, which do not ask by gRPC."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from facetmesh.kit.errors import Unavailable
from facetmesh.kit.verifier import KEYS_REFRESH_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATH = "/.well-known/jwks.json"
_HEADERS = {"Cache-Control": f"public, max-age={KEYS_REFRESH_S:.0f}", "X-Content-Type-Options": "nosniff"}


@contextlib.asynccontextmanager
async def published(jwks: Callable[[], Awaitable[str]], host: str, port: int) -> AsyncIterator[int]:
    """Serves the JWK Set at PATH, and nothing else, until the context ends. Yields the port.

    Args:
        jwks: The JSON text of the JWK Set (RFC 7517).
        host: The address that is listened on.
        port: The port; 0 asks the system.

    Raises:
        Unavailable: PORT_TAKEN.
    """

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=await jwks(), content_type="application/jwk-set+json", headers=_HEADERS)

    application = web.Application()
    application.router.add_get(PATH, answer)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            raise Unavailable(f"Port {port} on {host} is taken.", reason="PORT_TAKEN") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
