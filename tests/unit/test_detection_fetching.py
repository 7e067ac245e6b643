"""Images by their address, from a real server on this machine that stands for one on the internet."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from facetmesh.detection import fetching
from facetmesh.detection.fetching import AT_ONCE, Fetcher, is_public
from facetmesh.kit.errors import FacetmeshError
from facetmesh.kit.profiles import Profile, Unlimited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

HOST = "images.example.com"
DEADLINE_S = 60
ALLOWED = Unlimited(Profile(url_allowlist=(HOST, "*.example.org", "*.0.0.1")))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the host's, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "host.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


async def image(_: web.Request) -> web.Response:
    """A file."""
    return web.Response(body=b"the image")


async def large(_: web.Request) -> web.Response:
    """A file that is too large."""
    return web.Response(body=bytes(5000))


async def elsewhere(_: web.Request) -> web.Response:
    """A way to another place."""
    raise web.HTTPFound("https://169.254.169.254/latest/meta-data")


def fetching_from(certificate: Path, **more: Any) -> Fetcher:
    """A fetcher that trusts the host's certificate."""
    return Fetcher(ALLOWED, tls=ssl.create_default_context(cafile=str(certificate)), max_bytes=1000, **more)


async def here(_: str, __: int) -> list[str]:
    """This machine, whatever is asked for."""
    return ["127.0.0.1"]


@asynccontextmanager
async def host(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """Stands for the host, and answers with whatever bytes it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()

    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=served)
    monkeypatch.setattr(fetching, "_HTTPS", server.sockets[0].getsockname()[1])
    async with server:
        yield


@pytest.fixture
async def fetcher(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Fetcher]]:
    """Makes fetchers that take a server on this machine for the host."""
    app = web.Application()
    app.add_routes([web.get("/cat.jpg", image), web.get("/large.jpg", large), web.get("/away.jpg", elsewhere)])
    runner = web.AppRunner(app)
    await runner.setup()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setattr(fetching, "_HTTPS", port)
    made: list[Fetcher] = []

    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    def make(*, allowed: Callable[[str], bool] = lambda _: True) -> Fetcher:
        one = fetching_from(certificate, resolve=resolve, allowed=allowed)
        one.port = port  # type: ignore[attr-defined]
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()
    await runner.cleanup()


async def refusal(fetcher: Fetcher, uri: str) -> tuple[str, str]:
    """What a fetch is refused with."""
    with pytest.raises(FacetmeshError) as caught:
        await fetcher.fetch("tenants/acme", uri)
    return caught.value.code, caught.value.reason


async def test_a_file_is_fetched(fetcher: Callable[..., Fetcher]) -> None:
    one = fetcher()
    at = f"https://{HOST}:{one.port}"  # type: ignore[attr-defined]
    assert (await one.fetch("tenants/acme", f"{at}/cat.jpg")).data == b"the image"
    assert await refusal(one, f"{at}/large.jpg") == ("INVALID_ARGUMENT", "IMAGE_TOO_LARGE")
    assert await refusal(one, f"{at}/away.jpg") == ("INVALID_ARGUMENT", "IMAGE_URI_REFUSED")
    assert await refusal(one, f"{at}/nothing.jpg") == ("INVALID_ARGUMENT", "IMAGE_URI_REFUSED")


async def test_a_host_that_resolves_to_us_is_not_asked(fetcher: Callable[..., Fetcher]) -> None:
    """Whatever its name: what is resolved is what is connected to."""
    one = fetcher(allowed=is_public)
    at = f"https://{HOST}:{one.port}/cat.jpg"  # type: ignore[attr-defined]
    assert await refusal(one, at) == ("PERMISSION_DENIED", "IMAGE_HOST_NOT_ALLOWED")


async def test_a_host_with_another_certificate_is_not_believed(fetcher: Callable[..., Fetcher]) -> None:
    one = fetcher()
    at = f"https://cdn.example.org:{one.port}/cat.jpg"  # type: ignore[attr-defined]
    assert await refusal(one, at) == ("UNAVAILABLE", "IMAGE_URI_UNREACHABLE")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("https://other.example.com/x", "IMAGE_HOST_NOT_ALLOWED"), ("https://example.org/x", "IMAGE_HOST_NOT_ALLOWED"),
        ("https://evilexample.org/x", "IMAGE_HOST_NOT_ALLOWED"),
        (f"https://{HOST}.evil.com/x", "IMAGE_HOST_NOT_ALLOWED"),
        (f"http://{HOST}/x", "IMAGE_URI_INVALID"), (f"file:///{HOST}", "IMAGE_URI_INVALID"),
        (f"https://a:b@{HOST}/x", "IMAGE_URI_INVALID"), (f"https://{HOST}:8443/x", "IMAGE_URI_INVALID"),
        (f"https://{HOST}:99999/x", "IMAGE_URI_INVALID"), ("https://127.0.0.1/x", "IMAGE_URI_INVALID"),
        ("https://[::1]/x", "IMAGE_URI_INVALID"), ("https:///x", "IMAGE_URI_INVALID"),
        ("https://[bad/x", "IMAGE_URI_INVALID"), (f"https://evil.com\\@{HOST}/x", "IMAGE_URI_INVALID"),
        # Read as 127.0.0.1 by one parser, and as a name by another.
        ("https://\uff11\uff12\uff17.0.0.1/x", "IMAGE_URI_INVALID"), ("https://0x7f.0.0.1/x", "IMAGE_URI_INVALID"),
        ("https://2130706433/x", "IMAGE_URI_INVALID"), ("https://127.1/x", "IMAGE_URI_INVALID"),
        ("https://[::ffff:127.0.0.1]/x", "IMAGE_URI_INVALID"), (f"https://:b@{HOST}/x", "IMAGE_URI_INVALID"),
        (f"https://{HOST}:443@evil.com/x", "IMAGE_URI_INVALID"), (f"https://{HOST}%2eevil.com/x", "IMAGE_URI_INVALID"),
        (f"https://{HOST}\r\nX: y/x", "IMAGE_URI_INVALID"), (f"https://{HOST}./x", "IMAGE_URI_INVALID"),
        # Names that cannot be looked up.
        (f"https://{'a' * 64}.example.org/x", "IMAGE_URI_INVALID"), ("https://a..example.org/x", "IMAGE_URI_INVALID"),
        (f"https://{'a.' * 130}example.org/x", "IMAGE_URI_INVALID"), ("https://xn--/x", "IMAGE_URI_INVALID"),
    ],
)  # fmt: skip
async def test_addresses_that_are_not_even_tried(uri: str, reason: str) -> None:
    one = Fetcher(ALLOWED)
    assert (await refusal(one, uri))[1] == reason


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True), ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - nothing listens here
        ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("fe80::1%eth0", False),
        ("fc00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.1", False), ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False), ("ff02::1", False), ("::", False), ("fec0::1", False), ("3fff::1", False),
        ("192.0.0.8", False), ("192.88.99.1", False), ("::127.0.0.1", False), ("64:ff9b:1::7f00:1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:  # noqa: FBT001 - a table
    assert is_public(address) == public
    assert ip_address(address.partition("%")[0])


OK = b"HTTP/1.1 200 OK\r\n"


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    """One after the other."""
    writer.write(OK)
    while True:
        writer.write(b"x: " + b"y" * 4000 + b"\r\n")
        await writer.drain()


async def a_long_header(writer: asyncio.StreamWriter) -> None:
    """One that does not end."""
    writer.write(OK + b"x: ")
    while True:
        writer.write(b"y" * 4000)
        await writer.drain()


async def endless_chunks(writer: asyncio.StreamWriter) -> None:
    """More than is taken, of a length that is not said."""
    writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"64\r\n" + bytes(100) + b"\r\n")
        await writer.drain()


async def too_little(writer: asyncio.StreamWriter) -> None:
    """Less than it says."""
    writer.write(OK + b"Content-Length: 100\r\n\r\nless")
    await writer.drain()


async def byte_by_byte(writer: asyncio.StreamWriter) -> None:
    """Always something, never all."""
    writer.write(OK + b"Content-Length: 900\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def nothing(writer: asyncio.StreamWriter) -> None:
    """Silence."""
    await asyncio.sleep(DEADLINE_S)
    del writer


async def no_http(writer: asyncio.StreamWriter) -> None:
    """Another protocol."""
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await writer.drain()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (endless_headers, "IMAGE_URI_UNREACHABLE"), (a_long_header, "IMAGE_URI_UNREACHABLE"),
        (endless_chunks, "IMAGE_TOO_LARGE"), (too_little, "IMAGE_URI_UNREACHABLE"),
        (byte_by_byte, "IMAGE_URI_UNREACHABLE"), (nothing, "IMAGE_URI_UNREACHABLE"),
        (no_http, "IMAGE_URI_UNREACHABLE"),
    ],
)  # fmt: skip
async def test_hosts_that_do_not_answer_as_they_should(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, reason: str
) -> None:
    impatient = answer in {byte_by_byte, nothing}
    one = fetching_from(
        certificate, resolve=here, allowed=lambda _: True, timeout_s=0.1 if impatient else DEADLINE_S
    )
    async with host(certificate, monkeypatch, answer), asyncio.timeout(DEADLINE_S):
        assert (await refusal(one, f"https://{HOST}:{fetching._HTTPS}/x"))[1] == reason
    await one.close()


async def test_what_is_packed_stays_so(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small answer does not become a large image."""
    async def packed(writer: asyncio.StreamWriter) -> None:
        bomb = gzip.compress(bytes(100_000))
        writer.write(OK + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb)
        await writer.drain()

    one = fetching_from(certificate, resolve=here, allowed=lambda _: True)
    async with host(certificate, monkeypatch, packed):
        image = await one.fetch("tenants/acme", f"https://{HOST}:{fetching._HTTPS}/x")
    assert gzip.decompress(image.data) == bytes(100_000)
    await one.close()


@pytest.mark.parametrize("slow", ["the host", "its name"])
async def test_who_waits_for_slow_hosts_keeps_nobody_else(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """Each tenant has so many places, whether it waits for the host or for its addresses."""
    go_on, waiting = asyncio.Event(), 0

    async def wait() -> None:
        nonlocal waiting
        waiting += 1
        await go_on.wait()

    async def resolve(name: str, port: int) -> list[str]:
        if slow == "its name" and name == HOST:
            await wait()
        return await here(name, port)

    async def answer(writer: asyncio.StreamWriter) -> None:
        if slow == "the host":
            await wait()
        writer.write(OK + b"Content-Length: 5\r\n\r\nimage")
        await writer.drain()

    one = fetching_from(certificate, resolve=resolve, allowed=lambda _: True, timeout_s=DEADLINE_S)
    async with host(certificate, monkeypatch, answer), asyncio.timeout(DEADLINE_S):
        uri = f"https://{HOST}:{fetching._HTTPS}/x"
        many = [asyncio.create_task(one.fetch("tenants/acme", uri)) for _ in range(3 * AT_ONCE)]
        while waiting < AT_ONCE:
            await asyncio.sleep(0.01)
        other = asyncio.create_task(one.fetch("tenants/other", uri))
        while waiting == AT_ONCE:
            await asyncio.sleep(0.01)
        assert waiting == AT_ONCE + 1
        go_on.set()
        assert {image.data for image in await asyncio.gather(other, *many)} == {b"image"}
    await one.close()


async def test_a_lookup_keeps_its_place_until_it_ends(certificate: Path) -> None:
    """Its thread goes on when nobody waits any more."""
    ends, began = asyncio.Event(), 0

    async def resolve(_: str, __: int) -> list[str]:
        nonlocal began
        began += 1
        await ends.wait()
        raise OSError("no such host")

    one = fetching_from(certificate, resolve=resolve, timeout_s=0.05)
    reasons = await asyncio.gather(*(refusal(one, f"https://{HOST}/x") for _ in range(3 * AT_ONCE)))
    assert {reason for _, reason in reasons} == {"IMAGE_URI_UNREACHABLE"}
    assert began <= AT_ONCE
    before = began
    ends.set()
    async with asyncio.timeout(DEADLINE_S):
        while began == before:
            assert (await refusal(one, f"https://{HOST}/x"))[1] == "IMAGE_URI_UNREACHABLE"
    await one.close()
