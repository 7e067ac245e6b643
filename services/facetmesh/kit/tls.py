"""TLS of the services' ports and of their calls of each other, from files that may be replaced at any time."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from facetmesh.kit.errors import FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificates and keys lie, in PEM. None of them: no encryption."""

    cert: Path | None = None
    """The service's own certificate, with those between it and its authority."""
    key: Path | None = None
    """Its private key."""
    client_ca: Path | None = None
    """The authorities of clients' certificates: who has none is not let in. None: no certificate is asked for."""
    ca: Path | None = None
    """The authorities of other services' certificates, whose ports are encrypted too then."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> TlsFiles:
        """What FACETMESH_TLS_CERT, _KEY, _CLIENT_CA and _CA say, as for the services."""
        given = (environment.get(f"FACETMESH_TLS_{name}") for name in ("CERT", "KEY", "CLIENT_CA", "CA"))
        return cls(*(Path(text) if text else None for text in given))

    @property
    def served(self) -> bool:
        """Whether the service's own port is encrypted."""
        return self.cert is not None

    def check(self) -> None:
        """Returns when they fit together.

        Raises:
            FailedPrecondition: TLS_INVALID.
        """
        if (self.cert is None) != (self.key is None):
            raise _invalid("FACETMESH_TLS_CERT and FACETMESH_TLS_KEY go together")
        if self.client_ca is not None and self.cert is None:
            raise _invalid("FACETMESH_TLS_CLIENT_CA needs FACETMESH_TLS_CERT: clients show theirs to who shows his")


class _Reloaded:
    """The server's side, read again where a file has changed since the last handshake."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = self._now()
        self.first = self._read()

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The files' content, where it is another than before; gRPC asks with each handshake."""
        try:
            stamp = self._now()
            if stamp == self._stamp:
                return None
            fresh = self._read()
        except (OSError, FailedPrecondition) as error:
            _log.warning("the certificate could not be read again", extra={"detail": str(error)})
            return None
        self._stamp = stamp
        _log.info("the certificate was read again")
        return fresh

    def _now(self) -> list[tuple[int, int, int]]:
        files = (self._files.cert, self._files.key, self._files.client_ca)
        found = [path.stat() for path in files if path is not None]
        return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(_content(self._files.key) or b"", _content(self._files.cert) or b"")], _content(self._files.client_ca)
        )


def listen(server: grpc.aio.Server, host: str, port: int, files: TlsFiles, *, plaintext: bool = False) -> int:
    """Has a server listen; returns the port.

    Args:
        server: The server.
        host: The address.
        port: The port; 0 asks the system.
        files: With which certificate.
        plaintext: Whether others than this machine may be served unencrypted.

    Raises:
        FailedPrecondition: TLS_MISSING: others could listen to what is said. TLS_INVALID: the files are of no use.
        Unavailable: PORT_TAKEN.
    """
    files.check()
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if files.served:
            bound = server.add_secure_port(address, _server_credentials(files))
        elif plaintext or is_loopback(host):
            bound = server.add_insecure_port(address)
        else:
            raise FailedPrecondition(
                f"{host} is not the loopback: set FACETMESH_TLS_CERT and FACETMESH_TLS_KEY, or "
                "FACETMESH_ALLOW_PLAINTEXT where something else encrypts, such as a service mesh.",
                reason="TLS_MISSING",
            )
    except OSError as error:
        raise _invalid(str(error)) from error
    except RuntimeError:
        bound = 0
    if not bound:
        raise Unavailable(f"Port {port} on {host} is taken.", reason="PORT_TAKEN")
    return bound


def channel(
    address: str,
    files: TlsFiles,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A connection with another service: encrypted where its authority is known, with our own certificate if any.

    Raises:
        FailedPrecondition: TLS_INVALID.
    """
    files.check()
    if files.ca is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    try:
        credentials = grpc.ssl_channel_credentials(
            _content(files.ca), _content(files.key), _content(files.cert)
        )
    except OSError as error:
        raise _invalid(str(error)) from error
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    reloaded = _Reloaded(files)
    return grpc.dynamic_ssl_server_credentials(
        reloaded.first,
        reloaded.fetch,  # type: ignore[arg-type] # None is in order: nothing has changed
        require_client_authentication=files.client_ca is not None,
    )


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _invalid(problem: str) -> FailedPrecondition:
    return FailedPrecondition(f"TLS cannot be used: {problem}.", reason="TLS_INVALID")
