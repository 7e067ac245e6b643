"""What the command line says before the command, and what follows from it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from facetmesh.cli import output
from facetmesh.cli.mesh.home import Home
from facetmesh.client import Client, Endpoints, Tls
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path

    import typer

KEY_VARIABLE = "FACETMESH_KEY"


@dataclass(frozen=True, slots=True)
class Options:
    """The global options."""

    json: bool
    """Answers are JSON on stdout, for programs."""
    home: Home
    """The state folder."""
    key_file: Path | None
    """The file with the API key. Never the key itself: everybody can read a process's arguments."""
    address: str | None
    """host:port of a gateway; None for the mesh on this machine."""
    ca_file: Path | None
    """PEM of the authority that the gateway's certificate comes from."""
    tls: bool
    """Whether the services are spoken to encrypted."""
    cert_file: Path | None = None
    """PEM of the caller's own certificate and its private key."""

    @property
    def endpoints(self) -> Endpoints:
        """Where the services are."""
        if self.address is None:
            return replace(Endpoints.read(self.home.endpoints), tls=self._encryption)
        return Endpoints.gateway(self.address, self._encryption)

    @property
    def called(self) -> str:
        """How the shell calls this command on the same state folder."""
        here = self.home == Home.default()
        return output.called() if here else f"{output.called()} --home {shlex.quote(str(self.home.path))}"

    @property
    def encrypted(self) -> bool:
        """Whether TLS was asked for, by itself or by what it needs."""
        return bool(self.tls or self.ca_file or self.cert_file)

    @property
    def _encryption(self) -> Tls | None:
        if not self.encrypted:
            return None
        own = self.cert_file.read_bytes() if self.cert_file else None  # each reads its own part of it
        return Tls(self.ca_file.read_bytes() if self.ca_file else None, own, own)

    def tenant_client(self) -> Client:
        """A client with a tenant's key.

        Raises:
            FailedPrecondition: NO_ENDPOINTS: no mesh is known here; KEY_MISSING; the message says where to put it.
        """
        endpoints, key = self.endpoints, self._given_key()
        if key is None:
            raise FailedPrecondition(
                "Which tenant's key? `facetmesh tenants onboard TENANT --out FILE` makes a tenant and its first, "
                "`facetmesh keys create TENANT --out FILE` another; give it with --key-file FILE or in "
                f"{KEY_VARIABLE}.", reason="KEY_MISSING",
            )
        return Client(key, endpoints)

    def admin_client(self) -> Client:
        """A client with the key that was given, else the platform admin's of the mesh on this machine.

        Raises:
            FailedPrecondition: As for `tenant_client`, where there is none.
        """
        if self.key_file is None and self.home.admin_key.exists():
            return Client(self.home.admin_key.read_text().strip(), self.endpoints)
        return self.tenant_client()

    def public_client(self) -> Client:
        """A client for what needs no key."""
        return Client(None, self.endpoints)

    @property
    def has_tenant_key(self) -> bool:
        """Whether a key was given."""
        return self._given_key() is not None

    def _given_key(self) -> str | None:
        if self.key_file is None:
            return os.environ.get(KEY_VARIABLE) or None
        # Whatever else somebody names by mistake, a photo for one, holds no key either.
        key = self.key_file.read_text(errors="replace").strip()
        if not key.isascii() or not key:
            raise FailedPrecondition(f"{self.key_file} holds no API key.", reason="KEY_MISSING")
        return key


def options(context: typer.Context) -> Options:
    """The global options of a command."""
    found = context.find_object(Options)
    if found is None:
        raise RuntimeError("The command was not called through the application.")
    return found
