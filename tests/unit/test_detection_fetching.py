"""Images by their address, from a real server on this machine that stands for one on the internet."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from facetmesh.detection import fetching
from facetmesh.detection.fetching import Fetcher, is_public
from facetmesh.kit.errors import FacetmeshError
from facetmesh.kit.profiles import Profile, Unlimited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

HOST = "images.example.com"
ALLOWED = Unlimited(Profile(url_allowlist=(HOST, "*.example.org")))


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
        trusted = ssl.create_default_context(cafile=str(certificate))
        one = Fetcher(ALLOWED, resolve=resolve, allowed=allowed, tls=trusted, max_bytes=1000)
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
