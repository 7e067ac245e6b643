"""Prometheus beside the control plane, with our rules, scraping what k8s/observability has it scrape."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tests.contract.harness import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .controlplane import ControlPlane

_RULES = Path(__file__).resolve().parents[2] / "k8s" / "observability" / "rules.yaml"
_EVERY = "1s"
"""Scrapes and evaluations, here."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    port: int
    """Of the loopback."""
    targets: Path
    """What it scrapes; it looks again when the file changes."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def scrape(self, replicas: Mapping[str, Mapping[str, str]]) -> None:
        """Has it scrape these replicas, and no others any more.

        Args:
            replicas: The labels that a PodMonitor gives what each exports, by host and port of its metrics.
        """
        groups = [{"targets": [at], "labels": dict(labels)} for at, labels in replicas.items()]
        scratch = self.targets.with_suffix(".new")
        scratch.write_text(json.dumps(groups))
        scratch.replace(self.targets)

    def scraped(self) -> set[str]:
        """The replicas that answered the last time they were asked."""
        return {labels["instance"] for labels, up in self.query("up") if up}

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The series that an expression has now, by their labels."""
        asked = urllib.parse.urlencode({"query": expression})
        return [(one["metric"], float(one["value"][1])) for one in self._get(f"query?{asked}")["result"]]

    def rules(self) -> list[Any]:
        """Our rules, and how each was evaluated last."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]


def start(cluster: ControlPlane) -> Prometheus:
    """Starts it, with nothing to scrape yet."""
    made = Prometheus(free_port(), cluster.folder / "targets.json")
    made.scrape({})
    rules = cluster.folder / "rules.yaml"
    resource = yaml.safe_load(_RULES.read_text())
    rules.write_text(yaml.safe_dump(resource["spec"]))
    config = cluster.folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump({
        "global": {"scrape_interval": _EVERY, "scrape_timeout": _EVERY, "evaluation_interval": _EVERY},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "services", "file_sd_configs": [{"files": [str(made.targets)]}]}],
    }))  # fmt: skip
    cluster.run(
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={cluster.folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{made.port}", f"--scrape.discovery-reload-interval={_EVERY}",
        "--log.level=warn",
    )  # fmt: skip
    cluster.until(lambda: _ready(made.port), "Prometheus is ready")
    return made


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
            return True
    except OSError:
        return False
