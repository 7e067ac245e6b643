"""Versions: the files of models, as they were checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model."""

    name: str
    datatype: str
    """As KServe's protocol calls it, such as FP32."""
    shape: tuple[int, ...]
    """-1 where it is open."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a check found out about a model's file."""

    labels: tuple[str, ...]
    """The names of its classes, by class id."""
    task: str
    """detect, segment, pose, obb or classify."""
    height: int
    """Rows of its input."""
    width: int
    """Columns of its input."""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """A model's file, as it was checked. It never changes."""

    tenant_id: str
    model_id: str
    number: int
    """From 1; never used again, even when the model is deleted and made anew. 0 while it has none."""
    sha256: str
    """Of the file that runs, in hex."""
    size_bytes: int
    licence: str
    """An SPDX licence expression."""
    facts: Facts
    created_s: float
    """When it was created, in seconds since the epoch."""
    catalog_id: str = ""
    """The entry of the catalogue it comes from; empty for an upload."""
    blob: str = ""
    """Under which key the file is kept; empty for one of the catalogue."""
    parts: int = 0
    """In how many blobs it is kept."""
    source_sha256: str = ""
    """Of the file that was uploaded, in hex."""
    signing_key_id: str = ""
    """The key of the tenant's policy with which it was signed; empty when it was not."""

    @property
    def model(self) -> str:
        """The model's resource name."""
        return f"tenants/{self.tenant_id}/models/{self.model_id}"

    @property
    def name(self) -> str:
        """The resource name."""
        return f"{self.model}/versions/{self.number}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes, by class id."""
        return self.facts.labels
