"""Images that are given by their address.

A caller who may name addresses may make us ask places that only we can reach
(server-side request forgery). So: https, at a host that the tenant's settings
name, and no other; the addresses it resolves to must be public ones, and exactly
those are connected to, so that a name that resolves differently a moment later
gains nothing; no redirects, no proxies, no cookies; size and time are capped.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.helpers import is_ip_address

from facetmesh.detection.detector import Image
from facetmesh.kit.errors import InvalidArgument, PermissionDenied, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from facetmesh.kit.profiles import Profiles

MAX_BYTES = 20_000_000
TIMEOUT_S = 10.0
_AT_ONCE = 16
_HTTPS = 443
_CHUNK_BYTES = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "fec0::/10"))
)
"""What the standard library of some of our Pythons takes for global: protocols' own, relays, examples, sites' own."""


async def addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system resolves it."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether an address is one that anybody on the internet could reach, in whatever notation."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    special = ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_PUBLIC)
    return ip.is_global and not special


class Fetcher:
    """Fetches images. To be closed.

    Args:
        profiles: Which hosts a tenant may name.
        resolve: The addresses of a host and port.
        allowed: Whether an address may be connected to.
        tls: How the host is verified; with the system's certificates when None.
        max_bytes: The largest file.
        timeout_s: How long it may take, in seconds.
    """

    def __init__(
        self,
        profiles: Profiles,
        *,
        resolve: Callable[[str, int], Awaitable[list[str]]] = addresses,
        allowed: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._profiles = profiles
        self._resolver = _Resolver(resolve, allowed)
        self._tls = tls
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, tenant: str, uri: str) -> Image:
        """The image at an address.

        Args:
            tenant: For whom: tenants/{tenant}.
            uri: An https address.

        Raises:
            InvalidArgument: IMAGE_URI_INVALID: it is no such address; IMAGE_URI_REFUSED: there is no image;
                IMAGE_TOO_LARGE.
            PermissionDenied: IMAGE_HOST_NOT_ALLOWED: the tenant may not name that host.
            Unavailable: IMAGE_URI_UNREACHABLE: the host did not answer in time.
        """
        self._check(tenant, uri)
        try:
            async with self._open().get(uri, allow_redirects=False, ssl=self._tls or True) as response:
                if response.status != 200:  # noqa: PLR2004 - HTTP's OK
                    raise InvalidArgument(
                        f"The image's host answered {response.status}; redirects are not followed.",
                        reason="IMAGE_URI_REFUSED",
                    )
                return Image(await self._read(response))
        except _NotPublicError:
            raise PermissionDenied(
                "The image's host has no public address.", reason="IMAGE_HOST_NOT_ALLOWED"
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                "The image's host did not answer as it should.", reason="IMAGE_URI_UNREACHABLE", retry_after_s=5
            ) from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _check(self, tenant: str, uri: str) -> None:
        try:
            parts = urlsplit(uri)
            plain = parts.scheme == "https" and parts.username is None and parts.port in (None, _HTTPS)
        except ValueError:
            plain = False
        # aiohttp asks no resolver for a host that is an address.
        if not plain or not parts.hostname or is_ip_address(parts.hostname):
            raise InvalidArgument(
                "image_uri: https and the name of a host are expected, without user and port.",
                reason="IMAGE_URI_INVALID",
            )
        if not any(_fits(parts.hostname, rule) for rule in self._profiles.profile(tenant).url_allowlist):
            raise PermissionDenied(
                "The tenant's settings do not name the image's host.", reason="IMAGE_HOST_NOT_ALLOWED"
            )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise InvalidArgument(
                    f"The image has more than {self._max_bytes} bytes.", reason="IMAGE_TOO_LARGE"
                )
        return bytes(data)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Nothing is unpacked: a small answer must not become a large image.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver, limit=_AT_ONCE, use_dns_cache=False, force_close=True
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "Accept": "image/jpeg, image/png, image/webp"},
            )
        return self._session


def _fits(host: str, rule: str) -> bool:
    return host.endswith(rule[1:]) if rule.startswith("*.") else host == rule


class _NotPublicError(Exception):
    """A host resolves to an address that may not be connected to."""


class _Resolver(AbstractResolver):
    """Resolves for aiohttp, which connects to what this returns and asks nobody else."""

    def __init__(
        self, resolve: Callable[[str, int], Awaitable[list[str]]], allowed: Callable[[str], bool]
    ) -> None:
        self._resolve = resolve
        self._allowed = allowed

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        """The host's addresses; none at all where one of them is not allowed."""
        del family
        found = await self._resolve(host, port)
        if not all(self._allowed(address) for address in found):
            raise _NotPublicError(host)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is open."""
