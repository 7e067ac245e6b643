"""A tenant's namespace on Kubernetes, made out of k8s/tenant. Standard library only."""

from __future__ import annotations

import re
import string
from dataclasses import asdict, dataclass

from facetmesh.kit import shipped
from facetmesh.kit.errors import InvalidArgument

_ID = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")
_QUANTITY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?(m|[KMGTP]i|[kMGTP])?")
"""A quantity of Kubernetes', without those that nobody writes."""
_MOST = 100_000
KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [tenant.yaml]
"""
"""Stands beside the rendered file, for overlays of one's own over it."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant's pods may have together, in Kubernetes' quantities."""

    cpu: str = "4"
    cpu_limit: str = "8"
    """What they may burst to."""
    memory: str = "16Gi"
    storage: str = "50Gi"
    pods: int = 20
    gpus: int = 0
    mig_slices: int = 0


DEFAULT = Share()
"""What one gets that says nothing."""


def render(tenant_id: str, share: Share) -> str:
    """The Namespace, ResourceQuota, LimitRange and NetworkPolicy, as YAML.

    Args:
        tenant_id: The tenant's id: 3 to 40 of a-z, 0-9 and hyphen.
        share: What its pods may have.

    Raises:
        InvalidArgument: TENANT_INVALID, QUANTITY_INVALID.
        FailedPrecondition: NOT_SHIPPED.
    """
    if not _ID.fullmatch(tenant_id):
        raise InvalidArgument(f'"{tenant_id}" is no tenant\'s id.', reason="TENANT_INVALID")
    values = asdict(share)
    for name, value in values.items():
        ok = 0 <= value <= _MOST if isinstance(value, int) else _QUANTITY.fullmatch(value)
        if not ok:
            raise InvalidArgument(f'{name.replace("_", " ")}: "{value}" is no quantity.', reason="QUANTITY_INVALID")
    template = string.Template((shipped.folder("k8s", "tenant") / "tenant.yaml").read_text())
    return template.substitute(values, tenant=tenant_id)
