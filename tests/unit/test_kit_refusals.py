"""Who is refused again and again is noticed, and a flood stays out of the log but for its count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from facetmesh.event.v1 import event_pb2
from facetmesh.kit.alerts import Alert, Alerts
from facetmesh.kit.audit import Record, Recorder
from facetmesh.kit.errors import InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from facetmesh.kit.refusals import RefusalLimits, Refusals
from facetmesh.kit.signing import ALERT_CONTEXT, EventSigner
from facetmesh.kit.telemetry import Metrics

from .bus import Bus

if TYPE_CHECKING:
    from .conftest import Clock

SEED = bytes(range(32))
LIMITS = RefusalLimits(alert=5, window_s=60, source_rate=2, total_rate=10)
NOBODY = Unauthenticated("no", reason="TOKEN_MISSING")
DENIED = PermissionDenied("no", reason="ROLE_MISSING")


def record(source: str = "10.0.0.1", *, tenant: str = "", subject: str = "") -> Record:
    """A call from somewhere."""
    return Record("pkg.Service/Method", tenant, subject, source)


@pytest.fixture
def raised() -> list[Alert]:
    """What was raised."""
    return []


@pytest.fixture
def refusals(raised: list[Alert], clock: Clock) -> Refusals:
    """Watches, with low limits."""
    return Refusals(LIMITS, raised.append, clock)


def test_a_source_that_is_refused_again_and_again_raises_one_alert_a_window(
    refusals: Refusals, raised: list[Alert], clock: Clock
) -> None:
    for _ in range(4):
        refusals.admit(record(), NOBODY)
    refusals.admit(record("10.0.0.2"), NOBODY)
    refusals.admit(record(), InvalidArgument("a mistake is none"))
    assert raised == []
    for _ in range(20):
        refusals.admit(record(), NOBODY)
    assert [(one.rule, one.subject, one.count, one.window_s) for one in raised] == [
        ("refusals-from-source", "10.0.0.1", 5, 60),
    ]
    clock.now += 60
    for _ in range(5):
        refusals.admit(record(), NOBODY)
    assert len(raised) == 2


def test_a_tenant_that_is_refused_again_and_again_raises_an_alert(refusals: Refusals, raised: list[Alert]) -> None:
    for number in range(5):
        refusals.admit(record(f"10.0.0.{number}", tenant="tenants/acme", subject="tenants/acme/keys/k1"), DENIED)
    assert [(one.rule, one.tenant, one.subject) for one in raised] == [
        ("refusals-for-tenant", "tenants/acme", "tenants/acme/keys/k1"),
    ]


def test_a_flood_by_nobody_in_particular_is_recorded_together(refusals: Refusals, clock: Clock) -> None:
    admitted = [refusals.admit(record(), NOBODY) for _ in range(100)]
    assert admitted == [True] * 4 + [False] * 96
    ((one, error),) = refusals.folded()
    assert (one.source_address, one.method, one.count, error.reason) == (
        "10.0.0.1", "pkg.Service/Method", 96, "TOKEN_MISSING",
    )
    assert refusals.folded() == []
    clock.now += 1
    assert [refusals.admit(record(), NOBODY) for _ in range(3)] == [True, True, False]


def test_forged_sources_fill_neither_the_log_nor_memory(refusals: Refusals) -> None:
    admitted = sum(refusals.admit(record(f"10.0.{n >> 8}.{n & 255}"), NOBODY) for n in range(20_000))
    assert admitted == 20  # two seconds of all sources' rate
    folded = refusals.folded()
    assert len(folded) <= 257
    assert sum(one.count for one, _ in folded) == 20_000 - admitted
    assert max(folded, key=lambda pair: pair[0].count)[0].source_address == ""
    assert len(refusals._buckets) <= 4096


def test_who_was_recognised_is_always_recorded(refusals: Refusals) -> None:
    known = record(tenant="tenants/acme", subject="tenants/acme/keys/k1")
    assert all(refusals.admit(known, DENIED) for _ in range(1000))
    assert refusals.folded() == []


async def test_what_was_kept_back_becomes_one_event_with_its_count(refusals: Refusals) -> None:
    bus, metrics = Bus(), Metrics.create()
    recorder = Recorder("test", EventSigner("auth", SEED), bus, metrics, refusals=refusals)
    for _ in range(100):
        recorder.offer(record(), NOBODY)
    await recorder.close()
    assert sorted(event.count for event in bus.events) == [0, 0, 0, 0, 96]
    assert {event.outcome for event in bus.events} == {event_pb2.AuditEvent.OUTCOME_REFUSED}
    assert len({event.id for event in bus.events}) == 5


async def test_an_alert_is_signed_and_counted(clock: Clock) -> None:
    bus, metrics = Bus(), Metrics.create()
    alerts = Alerts("test", EventSigner("auth", SEED), bus, metrics, clock=clock)
    await alerts.publish(
        Alert("a-rule", "Look at it.", critical=True, tenant="tenants/acme", subject="x", count=3, window_s=1.5)
    )
    ((topic, data),) = bus.alerts
    signed = event_pb2.SignedAlert.FromString(data)
    Ed25519PrivateKey.from_private_bytes(SEED).public_key().verify(signed.signature, ALERT_CONTEXT + signed.alert)
    alert = event_pb2.Alert.FromString(signed.alert)
    assert (topic, alert.service, alert.rule, alert.summary, alert.severity) == (
        "alerts", "auth", "a-rule", "Look at it.", event_pb2.Alert.SEVERITY_CRITICAL,
    )
    assert (alert.tenant, alert.subject, alert.count, alert.window.ToMilliseconds(), alert.region) == (
        "tenants/acme", "x", 3, 1500, "test",
    )
    assert alert.time.ToSeconds() == int(clock.now)
    assert metrics.alerts.labels("a-rule")._value.get() == 1


async def test_where_no_event_can_be_published_the_metric_has_the_alert(caplog: pytest.LogCaptureFixture) -> None:
    bus, metrics = Bus(away=True), Metrics.create()
    alerts = Alerts("test", EventSigner("auth", SEED), bus, metrics)
    alerts.offer(Alert("a-rule", "Look at it."))
    await alerts.close()
    assert metrics.alerts.labels("a-rule")._value.get() == 1
    assert "an alert's event was lost" in caplog.messages
    with pytest.raises(Unavailable):
        await alerts.publish(Alert("a-rule", "Look at it."))


async def test_no_more_alerts_wait_than_there_is_room_for() -> None:
    blocked = asyncio.Event()

    class Slow(Bus):
        """Does not come back."""

        async def publish(self, topic: str, data: bytes, *, event_id: str, type: str) -> None:  # noqa: A002
            await blocked.wait()
            await super().publish(topic, data, event_id=event_id, type=type)

    bus, metrics = Slow(), Metrics.create()
    alerts = Alerts("test", EventSigner("auth", SEED), bus, metrics)
    for _ in range(500):
        alerts.offer(Alert("a-rule", "Look at it."))
    blocked.set()
    await alerts.close()
    assert len(bus.alerts) == 64
    assert metrics.alerts.labels("a-rule")._value.get() == 500
