"""The alerts, as Prometheus itself evaluates them over series that we make up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.full

ROOT = Path(__file__).resolve().parents[2]
_BUILD_S, _RUN_S = 3600, 300

Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def program() -> str:
    """promtool, built if it is not here."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "promtool.py"], stdout=subprocess.PIPE, text=True, check=True,
        timeout=_BUILD_S,
    )
    return done.stdout.strip()


@pytest.fixture
def promtool(program: str, tmp_path: Path) -> Promtool:
    """Runs it in a folder that has our rules and their tests."""
    resource = yaml.safe_load((ROOT / "k8s" / "observability" / "rules.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(resource["spec"]))
    (tmp_path / "alerts.yaml").write_text((Path(__file__).parent / "alerts.yaml").read_text())

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=_RUN_S
        )

    return run


def test_prometheus_finds_nothing_wrong_with_the_rules(promtool: Promtool) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_are_raised_when_they_should_and_only_then(promtool: Promtool) -> None:
    done = promtool("test", "rules", "alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_waits_for_more_would_be_found(promtool: Promtool, tmp_path: Path) -> None:
    rules = (tmp_path / "rules.yaml").read_text()
    assert "> 600" in rules
    (tmp_path / "rules.yaml").write_text(rules.replace("> 600", "> 6000"))
    done = promtool("test", "rules", "alerts.yaml")
    assert done.returncode == 1
    assert "FacetmeshQueueAges" in done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    resource = yaml.safe_load((ROOT / "k8s" / "observability" / "rules.yaml").read_text())
    alerts = {rule["alert"] for group in resource["spec"]["groups"] for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())["tests"]
    raised = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert raised == alerts
