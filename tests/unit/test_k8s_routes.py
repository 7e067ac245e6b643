"""The routes' regular expressions are short enough for an Envoy whose limit nobody raised.

Envoy takes programs of RE2 of up to 100 instructions; beyond that it takes no route at all. Istio raises the limit
for its own proxies, for others nobody does.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from facetmesh.cli.mesh import binaries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

K8S = Path(__file__).resolve().parents[2] / "k8s"
_RUN_S = 120


def regexes(node: Any) -> Iterator[str]:
    """Each regular expression in a resource's matches."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "regex" and isinstance(value, str):
                yield value
            else:
                yield from regexes(value)
    elif isinstance(node, list):
        for one in node:
            yield from regexes(one)


def ours() -> set[str]:
    """All that VirtualServices match by."""
    resources = (one for path in K8S.rglob("*.yaml") for one in yaml.safe_load_all(path.read_text()) if one)
    return {one for resource in resources if resource.get("kind") == "VirtualService" for one in regexes(resource)}


def validated(folder: Path, expressions: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """What Envoy says of routes that match by them."""
    routes = [
        {"match": {"safe_regex": {"regex": one}}, "direct_response": {"status": 200}} for one in sorted(expressions)
    ]
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "routes",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{filters}.http.router.v3.Router"},
        }],
    }  # fmt: skip
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        }],
    }  # fmt: skip
    bootstrap = folder / "envoy.json"
    bootstrap.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    return subprocess.run(
        [binaries.envoy(), "--mode", "validate", "--config-path", bootstrap],
        capture_output=True, text=True, check=False, timeout=_RUN_S,
    )  # fmt: skip


def test_envoy_takes_them(tmp_path: Path) -> None:
    found = ours()
    assert len(found) >= 5
    done = validated(tmp_path, found)
    assert done.returncode == 0, done.stderr


def test_one_that_is_too_long_would_be_found(tmp_path: Path) -> None:
    done = validated(tmp_path, ["|".join(sorted(ours()))])
    assert done.returncode != 0
    assert "RE2 program size" in done.stderr
