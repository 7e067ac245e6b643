"""Images that are given by their address.

A caller who may name addresses may make us ask places that only we can reach
(server-side request forgery). So: https, at a host that the tenant's settings
name, and no other; the addresses it resolves to must be public ones, and exactly
those are connected to, so that a name that resolves differently a moment later
gains nothing; no redirects, no proxies, no cookies; size and time are capped.

The host may be the caller's own, and slow on purpose, and so may the server be
that knows its address: each tenant has places of its own, and looking up
addresses has threads of its own, so that nobody else waits for them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.helpers import is_ip_address
from yarl import URL

from facetmesh.detection.detector import Image
from facetmesh.kit.errors import InvalidArgument, PermissionDenied, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    from facetmesh.kit.profiles import Profiles

MAX_BYTES = 20_000_000
TIMEOUT_S = 10.0
AT_ONCE = 8
"""Images that are fetched for one tenant at a time; more wait."""
_LOOKUPS = 64
_HTTPS = 443
_CHUNK_BYTES = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "fec0::/10"))
)
"""What the standard library of some of our Pythons takes for global: protocols' own, relays, examples, sites' own."""
_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A host's name as it is looked up. The last part of an address, in whatever notation, is a number."""


class Lookup:
    """Finds the addresses of hosts, as the system resolves them. To be closed.

    It blocks a thread for as long as the system's resolver tries, which is longer than anybody here waits.
    """

    def __init__(self) -> None:
        """Has no thread until it is asked."""
        self._threads = ThreadPoolExecutor(_LOOKUPS, "lookup")

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a host.

        Raises:
            OSError: None was found.
        """
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Waits for no thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str, port: int) -> list[str]:
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


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
        resolve: The addresses of a host and port; as the system finds them when None.
        allowed: Whether an address may be connected to.
        tls: How the host is verified; with the system's certificates when None.
        max_bytes: The largest file.
        timeout_s: How long it may take, in seconds.
    """

    def __init__(
        self,
        profiles: Profiles,
        *,
        resolve: Callable[[str, int], Awaitable[list[str]]] | None = None,
        allowed: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._profiles = profiles
        self._lookup = Lookup()
        self._resolve = resolve or self._lookup
        self._allowed = allowed
        self._tls = tls
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

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
        url = self._check(tenant, uri)
        try:
            async with (
                asyncio.timeout(self._timeout_s), self._session(tenant) as session,
                session.get(url, allow_redirects=False, ssl=self._tls or True) as response,
            ):  # fmt: skip
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
        """Gives its threads back."""
        self._lookup.close()

    def _check(self, tenant: str, uri: str) -> URL:
        """The address as aiohttp reads it: what another parser makes of it does not count."""
        try:
            url = URL(uri)
            plain = url.scheme == "https" and url.user is url.password is None and url.port == _HTTPS
        except ValueError:
            plain = False
        # aiohttp asks no resolver for a host that is an address.
        if not plain or _NAME.fullmatch(host := url.raw_host or "") is None or is_ip_address(host):
            raise InvalidArgument(
                "image_uri: https and the name of a host are expected, without user and port.",
                reason="IMAGE_URI_INVALID",
            )
        if not any(_fits(host, rule) for rule in self._profiles.profile(tenant).url_allowlist):
            raise PermissionDenied(
                "The tenant's settings do not name the image's host.", reason="IMAGE_HOST_NOT_ALLOWED"
            )
        return url

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise InvalidArgument(
                    f"The image has more than {self._max_bytes} bytes.", reason="IMAGE_TOO_LARGE"
                )
        return bytes(data)

    @asynccontextmanager
    async def _session(self, tenant: str) -> AsyncIterator[aiohttp.ClientSession]:
        """What a request is made with, in one of the tenant's places."""
        place = self._places.setdefault(tenant, asyncio.Semaphore(AT_ONCE))
        await place.acquire()
        resolver = _Resolver(self._resolve, self._allowed)
        try:
            # Nothing is unpacked: a small answer must not become a large image.
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "Accept": "image/jpeg, image/png, image/webp"},
            ) as session:
                yield session
        finally:
            resolver.when_done(place.release)


def _fits(host: str, rule: str) -> bool:
    return host.endswith(rule[1:]) if rule.startswith("*.") else host == rule


class _NotPublicError(Exception):
    """A host resolves to an address that may not be connected to."""


class _Resolver(AbstractResolver):
    """Resolves one host for aiohttp, which connects to what this returns and asks nobody else."""

    def __init__(
        self, resolve: Callable[[str, int], Awaitable[list[str]]], allowed: Callable[[str], bool]
    ) -> None:
        self._resolve = resolve
        self._allowed = allowed
        self._found: asyncio.Future[list[str]] | None = None

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        """The host's addresses; none at all where one of them is not allowed."""
        del family
        self._found = asyncio.ensure_future(self._resolve(host, port))
        found = await asyncio.shield(self._found)
        if not all(self._allowed(address) for address in found):
            raise _NotPublicError(host)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
            for address in found
        ]

    def when_done(self, done: Callable[[], None]) -> None:
        """Calls when nothing is looked up any more: a thread goes on, whether or not anybody waits for it."""
        if self._found is None:
            done()
        else:
            self._found.add_done_callback(lambda found: found.cancelled() or found.exception())  # nobody asks for it
            self._found.add_done_callback(lambda _: done())

    async def close(self) -> None:
        """Nothing is open."""
