"""Who has a link fetches one picture, for a while, as long as who made the link may."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facetmesh.fusion.link_keys import DaprLinkKeys
from facetmesh.fusion.links import Links, Maker
from facetmesh.fusion.operations import Ref
from facetmesh.fusion.purge import purge
from facetmesh.fusion.servicer import FusionServicer
from facetmesh.fusion.v1 import fusion_pb2
from facetmesh.kit import audit, identity
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition, NotFound, PermissionDenied
from facetmesh.kit.keyring import Keyring
from facetmesh.kit.revocations import Revocation
from facetmesh.kit.validation import validate

from .fusion_jobs import World

if TYPE_CHECKING:
    from facetmesh.fusion.operations import Operation

    from .conftest import Clock

KEY = "tenants/acme/keys/k1"
MAKER = Maker(KEY, "tenants/acme/tokens/j1")


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


@pytest.fixture
async def made(world: World) -> Operation:
    """A fusion of acme's."""
    return await world.worker.work(await world.create())


@pytest.fixture
def servicer(world: World) -> FusionServicer:
    """The servicer, called by a key of acme's."""
    principal = identity.Principal(KEY, "tenants/acme", frozenset({"caller"}), token_id="j1")
    identity.set_current(principal)
    return FusionServicer(world.fusions, world.pictures, world.links, world.lookups, lambda _: None)


async def refused(world: World, ref: Ref, token: str) -> None:
    with pytest.raises(PermissionDenied) as caught:
        await world.links.check(ref, token)
    assert (caught.value.reason, caught.value.message) == ("LINK_INVALID", "The link is not valid, or not any more.")


async def fetched(servicer: FusionServicer, path: str) -> bytes:
    """What a path of REST gives to somebody without a token."""
    address = urlsplit(path)
    name, _, verb = address.path.removeprefix("/v1/").partition(":")
    assert verb == "fetch"
    request = fusion_pb2.FetchFusionRequest(name=name, token=parse_qs(address.query, strict_parsing=True)["token"][0])
    validate(request)
    identity.set_current(None)
    return b"".join([part.data async for part in servicer.FetchFusion(request, None)])


async def test_a_link_gives_the_picture_and_the_log_says_by_whose_leave(
    servicer: FusionServicer, world: World, made: Operation, clock: Clock
) -> None:
    link = await servicer.LinkFusion(fusion_pb2.LinkFusionRequest(name=made.fusion_name), None)
    assert link.expire_time.ToMicroseconds() == pytest.approx((clock.now + 600) * 1e6)
    record = audit.Record("facetmesh.fusion.v1.FusionService/FetchFusion")
    audit.set_current(record)
    _, image = await world.fusions.download(made.ref)
    assert await fetched(servicer, link.path) == image
    assert (record.tenant, record.subject) == ("tenants/acme", KEY)


async def test_a_link_lasts_as_long_as_was_asked_for(
    servicer: FusionServicer, world: World, made: Operation, clock: Clock
) -> None:
    request = fusion_pb2.LinkFusionRequest(name=made.fusion_name)
    request.lifetime.seconds = 60
    link = await servicer.LinkFusion(request, None)
    token = link.path.partition("token=")[2]
    clock.now += 59
    assert (await world.links.check(made.ref, token)).maker == MAKER
    clock.now += 1
    await refused(world, made.ref, token)


async def test_a_link_is_to_one_picture_of_one_tenant(world: World, made: Operation) -> None:
    other = await world.worker.work(await world.create(target=b"another"))
    elsewhere = Ref("globex", made.id)
    token = (await world.links.make(made.ref, MAKER, 600)).token
    await world.links.make(elsewhere, Maker("tenants/globex/keys/k", "tenants/globex/tokens/j"), 600)
    for ref in (other.ref, elsewhere, Ref("nobody", made.id)):
        await refused(world, ref, token)
    assert "tenants/nobody/link-key" not in world.state.entries


async def test_nothing_in_a_link_can_be_changed(world: World, made: Operation, clock: Clock) -> None:
    token = (await world.links.make(made.ref, MAKER, 600)).token
    payload, mac = token.split(".")
    facts = json.loads(base64.urlsafe_b64decode(payload + "=="))
    longer = json.dumps([facts[0], facts[1] + 10**12, *facts[2:]]).encode()
    flipped = ("A" if mac[0] != "A" else "B") + mac[1:]
    for wrong in (
        f"{base64.urlsafe_b64encode(longer).decode().rstrip('=')}.{mac}", f"{payload}.{flipped}", f"{payload}.",
        payload, f".{mac}", f"{payload}.{mac}.{mac}", f"{payload}.{mac[:-4]}", "",
    ):  # fmt: skip
        await refused(world, made.ref, wrong)
    clock.now += 1
    assert (await world.links.check(made.ref, token)).token == token


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text("aA0-_.=+/é\0", max_size=200) | st.from_regex(r"\A[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\Z"))
async def test_whatever_is_no_link_is_refused(world: World, text: str) -> None:
    await world.link_keys.make("acme")
    await refused(world, Ref("acme", "0" * 32), text)


@pytest.mark.parametrize("facts", [{"a": 1}, [], [1, 2, 3, 4], [0, 1e400, None, {}], "text", [[], [], [], []]])
async def test_what_says_something_else_is_refused(world: World, facts: object) -> None:
    await world.link_keys.make("acme")
    payload = base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")
    await refused(world, Ref("acme", "0" * 32), f"{payload}.{payload}")


@pytest.mark.parametrize("name", ["tenants/acme", KEY, MAKER.token_name])
async def test_a_link_ends_with_who_made_it(world: World, made: Operation, clock: Clock, name: str) -> None:
    token = (await world.links.make(made.ref, MAKER, 600)).token
    world.revocations.add([Revocation("tenants/globex", clock.now), Revocation("tenants/acme/keys/k2", clock.now)], 0)
    await world.links.check(made.ref, token)
    world.revocations.add([Revocation(name, clock.now)], clock.now)
    await refused(world, made.ref, token)
    clock.now += 1
    again = (await world.links.make(made.ref, MAKER, 600)).token  # it was let in again
    await world.links.check(made.ref, again)


async def test_every_replica_knows_the_tenants_key(world: World, made: Operation) -> None:
    token = (await world.links.make(made.ref, MAKER, 600)).token
    keys = DaprLinkKeys(world.state, Keyring(world.state, bytes(32)))  # type: ignore[arg-type]
    await Links(keys, world.revocations, world.clock).check(made.ref, token)
    assert await keys.make("acme") == await world.link_keys.get("acme")
    assert await keys.make("globex") != await keys.make("acme")


async def test_the_key_is_encrypted_and_made_once_however_many_ask(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = DaprLinkKeys(world.state, Keyring(world.state, bytes(32)))  # type: ignore[arg-type]
    encrypt = first._cipher.encrypt

    async def late(tenant: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        await world.link_keys.make("acme")
        return await encrypt(tenant, plaintext, aad)

    monkeypatch.setattr(first._cipher, "encrypt", late)
    key = await first.make("acme")
    assert key == await world.link_keys.get("acme")
    assert len(key) == 32
    assert key not in world.state.entries["tenants/acme/link-key"].value


async def test_links_end_with_the_tenants_data_key(world: World, made: Operation) -> None:
    token = (await world.links.make(made.ref, MAKER, 600)).token
    keyring = Keyring(world.state, bytes(32))
    await keyring.destroy("acme")
    links = Links(DaprLinkKeys(world.state, keyring), world.revocations, world.clock)  # type: ignore[arg-type]
    with pytest.raises(PermissionDenied):
        await links.check(made.ref, token)
    with pytest.raises(NotFound) as caught:
        await links.make(made.ref, MAKER, 600)
    assert caught.value.reason == "DATA_DESTROYED"
    await purge(world.store, world.blobs, [world.link_keys], "acme")
    assert "tenants/acme/link-key" not in world.state.entries


async def test_a_bound_token_makes_no_link_that_is_not(servicer: FusionServicer, made: Operation) -> None:
    identity.set_current(identity.Principal(KEY, "tenants/acme", frozenset({"caller"}), certificate="thumb"))
    with pytest.raises(FailedPrecondition) as caught:
        await servicer.LinkFusion(fusion_pb2.LinkFusionRequest(name=made.fusion_name), None)
    assert caught.value.reason == "LINK_OF_BOUND_TOKEN"


async def test_only_what_is_kept_has_a_link(servicer: FusionServicer, world: World, made: Operation) -> None:
    link = await servicer.LinkFusion(fusion_pb2.LinkFusionRequest(name=made.fusion_name), None)
    waiting = await world.create(target=b"another")
    await world.fusions.delete(made.ref)
    expected: list[tuple[str, type[FacetmeshError]]] = [
        (made.fusion_name, NotFound), (waiting.fusion_name, FailedPrecondition),
        (f"tenants/acme/fusions/{'0' * 32}", NotFound),
    ]  # fmt: skip
    for name, error in expected:
        with pytest.raises(error):
            await servicer.LinkFusion(fusion_pb2.LinkFusionRequest(name=name), None)
    audit.set_current(audit.Record("facetmesh.fusion.v1.FusionService/FetchFusion"))
    with pytest.raises(NotFound):
        await fetched(servicer, link.path)
