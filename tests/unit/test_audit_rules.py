"""Alert rules: what they notice, what they let pass, and a file that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.audit import rules as rules_module
from facetmesh.audit.__main__ import alert_rules
from facetmesh.audit.refused import WINDOW_S, RefusedEvents
from facetmesh.audit.rules import Rules, load_rules
from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.kit.telemetry import Metrics

if TYPE_CHECKING:
    from facetmesh.kit.alerts import Alert

START_S = 1_800_000_000


def event(at_s: float = 0, **fields: Any) -> AuditEvent:
    """An event, this many seconds after the start."""
    made = AuditEvent(service="detection", tenant="tenants/acme", subject="tenants/acme/keys/k1", **fields)
    made.time.FromMicroseconds(int((START_S + at_s) * 1e6))
    return made


def rules(**rule: Any) -> Rules:
    """One rule at work."""
    listed = {"name": "r", "summary": "$subject $count $window $value", **rule}
    return Rules(load_rules({"rules": [listed]}), [], START_S * 1_000_000)


def raised(watching: Rules, *events: AuditEvent) -> list[str]:
    """The summaries of the alerts that events raise."""
    return [alert.summary for one in events for alert in watching.feed(one)]


REFUSED = AuditEvent.OUTCOME_REFUSED
BURST = {"filter": "outcome = REFUSED", "by": "source_address", "count": 3, "window_s": 10}


def test_a_burst() -> None:
    watching = rules(**BURST)
    calls = [event(at_s, outcome=REFUSED, source_address="10.0.0.1") for at_s in (0, 5, 9)]
    assert raised(watching, *calls) == ["10.0.0.1 3 10 "]


def test_no_burst() -> None:
    slow = [event(at_s, outcome=REFUSED, source_address="10.0.0.1") for at_s in (0, 8, 16, 24)]
    spread = [event(outcome=REFUSED, source_address=f"10.0.0.{n}") for n in range(9)]
    good = [event(outcome=AuditEvent.OUTCOME_OK, source_address="10.0.0.1") for _ in range(9)]
    for calls in (slow, spread, good):
        assert raised(rules(**BURST), *calls) == []


def test_after_an_alert_it_is_quiet_and_counts() -> None:
    watching = rules(**BURST)
    calls = [event(at_s / 10, outcome=REFUSED, source_address="10.0.0.1") for at_s in range(150)]
    assert raised(watching, *calls) == ["10.0.0.1 3 10 ", "10.0.0.1 100 10 "]


def test_a_flood_of_sources_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_module, "_MOST_SUBJECTS", 100)
    watching = rules(**BURST)
    flood = [event(outcome=REFUSED, source_address=f"10.0.{n // 256}.{n % 256}") for n in range(1000)]
    assert raised(watching, *flood) == []
    (_, memory) = watching._memories["r"]
    assert len(memory.counted) == 100


def test_a_new_region() -> None:
    watching = rules(when="new", by="subject", value="region")
    assert raised(watching, event(region="eu"), event(region="eu"), event(region="us")) == [
        "tenants/acme/keys/k1 0 0 us"
    ]
    assert watching.sightings == [("r", "tenants/acme/keys/k1", "eu"), ("r", "tenants/acme/keys/k1", "us")]
    again = Rules(load_rules({"rules": [{"name": "r", "summary": "s", "when": "new", "by": "subject",
                                         "value": "region"}]}), watching.sightings, 0)  # fmt: skip
    assert raised(again, event(region="us"), event(region="eu")) == []
    assert raised(again, event(region="asia")) == ["s"]


def test_what_varies_always_is_not_news() -> None:
    watching = rules(when="new", by="subject", value="source_address")
    alerts = raised(watching, *(event(source_address=f"10.0.{n // 256}.{n % 256}") for n in range(2000)))
    assert len(alerts) == 255


def test_who_was_not_seen_for_long_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_module, "_MOST_SIGHTINGS", 100)
    watching = rules(when="new", by="resource", value="region")
    flood = [event(resource=f"tenants/acme/keys/{number}", region="eu") for number in range(1000)]
    kept = event(resource="kept", region="eu")
    assert raised(watching, kept, *flood[:60], kept, *flood[60:120]) == []
    assert raised(watching, event(resource="kept", region="us")) == ["kept 0 0 us"]
    assert raised(watching, *flood, event(resource="kept", region="asia")) == []
    (_, memory) = watching._memories["r"]
    assert memory.sightings == sum(map(len, memory.seen.values())) == 100
    forgotten = {subject for _, subject in watching.forgotten}
    assert ("r", "kept") in watching.forgotten
    assert {one.resource for one in flood} - forgotten == set(memory.seen) - {"kept"}


def test_no_more_is_taken_from_the_store_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_module, "_MOST_SIGHTINGS", 100)
    listed = {"rules": [{"name": "r", "summary": "s", "when": "new", "by": "subject", "value": "region"}]}
    watching = Rules(load_rules(listed), [("r", f"key {number}", "eu") for number in range(150)], 0)
    assert watching.forgotten == [("r", f"key {number}") for number in range(50)]
    assert watching.sightings == []


def test_events_that_come_late() -> None:
    watching = rules(when="late", by="service", window_s=60)
    assert raised(watching, event(0), event(100), event(50)) == []
    assert raised(watching, event(30), event(31), event(101)) == ["detection 1 60 "]


def test_silence() -> None:
    watching = rules(when="silence", filter="service = detection", window_s=60)

    def after(seconds: float) -> int:
        return len(watching.tick(int((START_S + seconds) * 1e6)))

    assert [after(50), after(61), after(70)] == [0, 1, 0]
    watching.feed(event(80))
    assert [after(139), after(141)] == [0, 1]


def test_those_that_come_with_the_service() -> None:
    watching = Rules(alert_rules(None), [], START_S * 1_000_000)
    assert raised(watching, event(outcome=REFUSED, reason="MODEL_QUARANTINED", resource="tenants/acme/models/m")) == [
        "A call asked for tenants/acme/models/m, which is quarantined because it kills its runner."
    ]
    (alert,) = watching.feed(event(700, outcome=REFUSED, reason="LICENCE_NOT_ALLOWED"))
    assert (alert.rule, alert.tenant, alert.critical) == ("model-unlicensed", "tenants/acme", False)
    assert watching.tick((START_S + 700 + 86_400) * 1_000_000) == []
    (silent,) = watching.tick((START_S + 701 + 86_400) * 1_000_000)
    assert (silent.rule, silent.critical) == ("log-silent", False)
    assert "for 86400 s" in silent.summary


@pytest.mark.parametrize(
    "wrong",
    [
        {"when": "sometimes"}, {"filter": "outcome ="}, {"by": "shoe_size"}, {"count": 0}, {"count": "many"},
        {"window_s": -1}, {"when": "silence"}, {"when": "new"}, {"value": "region"}, {"colour": "red"},
        {"summary": None}, {"name": 3},
    ],
)  # fmt: skip
def test_a_rule_that_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition) as error:
        load_rules({"rules": [{"name": "r", "summary": "s", **wrong}]})
    assert error.value.reason == "ALERT_RULES_INVALID"


@pytest.mark.parametrize("listed", [None, [], {}, {"rules": {}}, {"rules": [None]}, {"rules": [{"name": "r"}]},
                                    {"rules": [{"name": "r", "summary": "s"}] * 2}])  # fmt: skip
def test_a_file_that_is_none(listed: object) -> None:
    with pytest.raises(FailedPrecondition):
        load_rules(listed)


def test_events_that_cannot_be_logged_are_counted_and_told_of_now_and_then() -> None:
    alerts: list[Alert] = []
    metrics = Metrics.create()
    now = [0.0]
    refused = RefusedEvents(metrics.registry, alerts.append, lambda: now[0])
    for _ in range(5):
        refused("EVENT_MALFORMED", "detection")
    now[0] = WINDOW_S
    refused("EVENT_TOO_LARGE", "detection")
    assert [alert.count for alert in alerts] == [1, 5]
    assert "EVENT_TOO_LARGE" in alerts[1].summary
    sample = metrics.registry.get_sample_value("facetmesh_audit_events_refused_total", {"reason": "EVENT_MALFORMED"})
    assert sample == 5
