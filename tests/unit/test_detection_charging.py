"""What a request that ran is charged as."""

from __future__ import annotations

from facetmesh.detection.charging import charged, copying
from facetmesh.detection.scheduler import Served
from facetmesh.kit.errors import FacetmeshError, Internal

KEY = "tenants/acme/keys/k1"


class Ledger:
    """Notes what is charged."""

    def __init__(self) -> None:
        self.charges: list[tuple[str, str, str, int, float]] = []

    def charge(
        self, tenant: str, subject: str, *, model: str = "", images: int = 0, compute_s: float = 0.0
    ) -> None:
        self.charges.append((tenant, subject, model, images, compute_s))


def ran(
    subject: str = "models/faces/versions/1", error: FacetmeshError | None = None, task: str = "infer"
) -> Served:
    """A request that kept a slot busy for half a second."""
    return Served(
        "acme", task, subject, queue_s=0.0, run_s=0.5, compute_s=0.5, cold=False, reply=None, error=error
    )


def test_an_answer_costs_an_image_a_failure_a_load_and_a_shadows_copy_only_their_compute() -> None:
    ledger = Ledger()
    charge = charged(ledger, lambda: KEY)
    charge(ran())
    charge(ran(error=Internal("It failed.")))
    with copying():
        charge(ran("models/faces/versions/2"))
    charge(ran("decode"))
    charge(ran(task="load"))
    model = "tenants/acme/models/faces"
    assert ledger.charges == [
        ("tenants/acme", KEY, model, 1, 0.5), ("tenants/acme", KEY, model, 0, 0.5),
        ("tenants/acme", KEY, model, 0, 0.5), ("tenants/acme", KEY, "", 1, 0.5),
        ("tenants/acme", KEY, model, 0, 0.5),
    ]  # fmt: skip
