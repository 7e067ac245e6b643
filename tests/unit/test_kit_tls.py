"""Ports with TLS, whose certificates are replaced while they serve; and none without it that others reach."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from facetmesh.kit.errors import FailedPrecondition, Unavailable
from facetmesh.kit.tls import TlsFiles, channel, is_loopback, listen

from .certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Echo(grpc.GenericRpcHandler):
    """Answers with what was sent."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Any method."""

        async def echo(request: bytes, _: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


@asynccontextmanager
async def served(files: TlsFiles, host: str = "127.0.0.1", **options: bool) -> AsyncIterator[str]:
    """A server; yields its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = listen(server, host, 0, files, **options)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def answers(address: str, files: TlsFiles) -> bool:
    """Whether a call gets through."""
    async with channel(address, files) as opened:
        try:
            return bool(await opened.unary_unary("/a/b")(b"x", timeout=60) == b"x")
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - nothing else means refused
            return False


@pytest.fixture
def authority() -> Authority:
    """An authority."""
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> TlsFiles:
    """A service's, which asks for certificates and has one."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    certificate, key = authority.leaf("service").write(tmp_path, "service")
    return TlsFiles(certificate, key, tmp_path / "ca.pem", tmp_path / "ca.pem")


async def test_services_with_certificates_talk_and_others_are_not_heard(files: TlsFiles, tmp_path: Path) -> None:
    async with served(files) as address:
        assert await answers(address, files)
        assert not await answers(address, TlsFiles())  # unencrypted
        assert not await answers(address, TlsFiles(ca=files.ca))  # without a certificate
        stranger = Authority()
        certificate, key = stranger.leaf("service").write(tmp_path, "stranger")
        assert not await answers(address, TlsFiles(certificate, key, ca=files.ca))
        (tmp_path / "other.pem").write_bytes(stranger.pem)
        assert not await answers(address, TlsFiles(files.cert, files.key, ca=tmp_path / "other.pem"))


async def test_without_clients_authority_none_is_asked_for(files: TlsFiles) -> None:
    async with served(TlsFiles(files.cert, files.key)) as address:
        assert await answers(address, TlsFiles(ca=files.ca))


async def test_a_new_certificate_serves_without_a_restart(files: TlsFiles, tmp_path: Path) -> None:
    async with served(TlsFiles(files.cert, files.key)) as address:
        assert await answers(address, TlsFiles(ca=files.ca))
        fresh = Authority()
        (tmp_path / "service.pem").write_bytes(b"half a file")
        assert await answers(address, TlsFiles(ca=files.ca))  # the old one, until the new one is of use
        fresh.leaf("service").write(tmp_path, "service")
        (tmp_path / "fresh.pem").write_bytes(fresh.pem)
        async with asyncio.timeout(60):
            while not await answers(address, TlsFiles(ca=tmp_path / "fresh.pem")):
                await asyncio.sleep(0.05)
        assert not await answers(address, TlsFiles(ca=files.ca))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])  # noqa: S104 - what is refused
async def test_nobody_listens_unencrypted_where_others_hear(host: str) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        listen(grpc.aio.server(), host, 0, TlsFiles())
    assert refusal.value.reason == "TLS_MISSING"


async def test_unless_it_is_said_that_something_else_encrypts() -> None:
    async with served(TlsFiles(), "0.0.0.0", plaintext=True) as address:  # noqa: S104 - what is tested
        assert await answers(address, TlsFiles())


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("x", False)],
)
def test_which_addresses_only_this_machine_reaches(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) == loopback


async def test_files_that_do_not_fit_are_refused(files: TlsFiles, tmp_path: Path) -> None:
    for wrong in (
        TlsFiles(files.cert), TlsFiles(key=files.key), TlsFiles(client_ca=files.client_ca),
        TlsFiles(tmp_path / "missing", files.key),
    ):  # fmt: skip
        with pytest.raises(FailedPrecondition) as refusal:
            listen(grpc.aio.server(), "127.0.0.1", 0, wrong)
        assert refusal.value.reason == "TLS_INVALID"
    with pytest.raises(FailedPrecondition):
        channel("127.0.0.1:1", TlsFiles(ca=tmp_path / "missing"))


async def test_a_taken_port_is_an_error(files: TlsFiles) -> None:
    for one in (files, TlsFiles()):
        async with served(one) as address:
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            with pytest.raises(Unavailable) as refusal:
                listen(server, "127.0.0.1", int(address.split(":")[1]), one)
            assert refusal.value.reason == "PORT_TAKEN"
