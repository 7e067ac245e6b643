"""Accounts for jobs: each that ends has an event in the audit log, with its reason where it made nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from facetmesh.fusion.operations import Operation

METHOD = "facetmesh.fusion/fuse"
"""What the audit log calls the work."""


class Record(Protocol):
    """The audit record of a piece of work: `kit.audit.Record`."""

    @property
    def receipt(self) -> str:
        """The receipt's resource name."""
        ...

    def describe(
        self, *, resource: str, model_version: str = "", inputs: Sequence[bytes] = (), output: bytes = b""
    ) -> None:
        """Adds what is known."""
        ...


class Recorder(Protocol):
    """Accounts for work: `kit.audit.Recorder`."""

    def record(
        self, *, method: str, tenant: str, subject: str, event_id: str | None = None
    ) -> AbstractAsyncContextManager[Record]:
        """Records what is done within; on leaving, the event has been accepted."""
        ...


class Accounts:
    """The ends of jobs.

    Args:
        recorder: Accounts for them.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def made(self, attempt: Operation, *, model_version: str, output: bytes, event_id: str) -> str:
        """Records what an attempt made; returns the receipt's name.

        Args:
            attempt: Who made it.
            model_version: What found the faces.
            output: SHA-256 of what was made.
            event_id: What the receipt is called after.

        Raises:
            Unavailable: The log does not take it now.
        """
        return await self._record(attempt, None, model_version, output, event_id)

    async def failed(self, attempt: Operation, error: FacetmeshError) -> None:
        """Records why a job ended without a result; raises as `made` does."""
        await self._record(attempt, error)

    async def _record(
        self,
        attempt: Operation,
        error: FacetmeshError | None,
        model_version: str = "",
        output: bytes = b"",
        event_id: str | None = None,
    ) -> str:
        try:
            async with self._recorder.record(
                method=METHOD, tenant=f"tenants/{attempt.tenant_id}", subject=attempt.caller.subject, event_id=event_id
            ) as record:
                record.describe(
                    resource=attempt.fusion_name,
                    model_version=model_version,
                    inputs=attempt.job.inputs,
                    output=output,
                )
                if error is not None:
                    raise error
        except FacetmeshError as raised:
            if raised is not error:
                raise
        return record.receipt
