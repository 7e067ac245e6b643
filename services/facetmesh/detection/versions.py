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
class ClassAgreement:
    """How far two models saw the same objects of a class in the same images."""

    label: str
    reference: int
    """How many the one found whose word counts."""
    found: int
    """How many the other found."""
    matched: int
    """How many of them are the same, each in one pair at most."""

    @property
    def f1(self) -> float:
        """From 0, nothing in common, to 1, the same."""
        total = self.reference + self.found
        return 2 * self.matched / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a version was made of another one with 8 bits instead of 32, and what that cost."""

    source: int
    """The number of that other version, of the same model."""
    calibrated: int
    """With how many images the ranges were found."""
    measured: int
    """In how many other images the two were compared."""
    images_sha256: str
    """Of the sorted SHA-256 digests of all these images, in hex."""
    classes: tuple[ClassAgreement, ...]
    """How far it sees what the other one saw, by class; without those that neither saw."""

    @property
    def total(self) -> ClassAgreement:
        """Of all classes together."""
        return ClassAgreement(
            "all", *(sum(getattr(one, side) for one in self.classes) for side in ("reference", "found", "matched"))
        )


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
    quantization: Quantization | None = None
    """How it was made of another version; None for one that came in."""

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
