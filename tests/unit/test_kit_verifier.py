"""RFC 8725's list, point by point."""

from __future__ import annotations

import base64
import json
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facetmesh.auth.grants import Grant
from facetmesh.detection.v1 import detection_pb2, model_pb2
from facetmesh.kit import access
from facetmesh.kit import verifier as kit_verifier
from facetmesh.kit.errors import PermissionDenied, Unauthenticated, Unavailable
from facetmesh.kit.identity import authorize, confirm, set_certificate
from facetmesh.kit.revocations import Revocation
from facetmesh.kit.verifier import CLOCK_SKEW_S, MAX_TOKEN_BYTES, TokenVerifier

from .conftest import AUDIENCE, ISSUER, Clock, new_issuer

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.auth.tokens import TokenIssuer


METHOD = "facetmesh.detection.v1.DetectionService/Detect"


class Source:
    """A source of keys that counts how often it is asked, and can be away."""

    def __init__(self, issuer: TokenIssuer) -> None:
        self.issuer = issuer
        self.asked = 0
        self.away = False

    async def jwks(self) -> str:
        """The keys."""
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return await self.issuer.jwks()


@pytest.fixture
def source(issuer: TokenIssuer) -> Source:
    """The issuer's keys."""
    return Source(issuer)


@pytest.fixture
def verifier(source: Source, clock: Clock) -> TokenVerifier:
    """A verifier that trusts the issuer."""
    return TokenVerifier(source, issuer=ISSUER, audience=AUDIENCE, clock=clock)


async def test_a_good_token_is_recognised(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant
) -> None:
    token, _ = issuer.issue(acme_caller)
    principal = await verifier.verify(token)
    assert (principal.subject, principal.tenant, principal.roles) == (
        "tenants/acme/keys/k1", "tenants/acme", frozenset({"caller"}),
    )
    assert token not in repr(principal)


async def test_an_expired_token_is_refused_after_the_allowed_skew(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, clock: Clock
) -> None:
    token, expires = issuer.issue(acme_caller)
    clock.now = expires + CLOCK_SKEW_S - 1
    await verifier.verify(token)
    clock.now = expires + CLOCK_SKEW_S
    with pytest.raises(Unauthenticated) as refusal:  # from the cache too
        await verifier.verify(token)
    assert refusal.value.reason == "TOKEN_EXPIRED"


def part(value: object) -> str:
    """One part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def changed(header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> Callable[[str], str]:
    """Changes a token's header or claims without signing it anew."""

    def change(token: str) -> str:
        head, body, signature = token.split(".")
        old_header = jwt.get_unverified_header(token)
        old_claims = jwt.decode(token, options={"verify_signature": False})
        head = part({**old_header, **header}) if header else head
        body = part({**old_claims, **claims}) if claims else body
        return f"{head}.{body}.{signature}"

    return change


def unsigned(token: str) -> str:
    """`alg: none`."""
    return changed(header={"alg": "none"})(token).rpartition(".")[0] + "."


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(unsigned, id="alg-none"),
        pytest.param(changed(header={"alg": "HS256"}), id="alg-confusion"),
        pytest.param(changed(header={"alg": "ES384"}), id="other-alg"),
        pytest.param(changed(header={"typ": "JWT"}), id="other-type"),
        pytest.param(changed(header={"crit": ["exp"]}), id="critical"),
        pytest.param(changed(header={"jwk": {"kty": "EC"}}), id="brings-its-key"),
        pytest.param(changed(header={"kid": "nobody"}), id="unknown-kid"),
        pytest.param(changed(header={"kid": "../../etc/passwd"}), id="kid-path"),
        pytest.param(changed(header={"kid": {"$ne": ""}}), id="kid-object"),
        pytest.param(changed(header={"jwk": {"kty": "EC"}}), id="key-in-header"),
        pytest.param(changed(claims={"tenant": "tenants/globex"}), id="other-tenant"),
        pytest.param(changed(claims={"roles": ["platform-admin"]}), id="more-roles"),
        pytest.param(lambda token: token[:-4] + "AAAA", id="other-signature"),
        pytest.param(lambda token: token + "x" * MAX_TOKEN_BYTES, id="huge"),
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: "a.b.c", id="no-jwt"),
    ],
)
async def test_a_forged_token_is_refused(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, forge: Callable[[str], str]
) -> None:
    token, _ = issuer.issue(acme_caller)
    with pytest.raises(Unauthenticated) as refusal:
        await verifier.verify(forge(token))
    assert refusal.value.reason == "TOKEN_INVALID"


@pytest.mark.parametrize(("issuer_name", "audience"), [("https://other.test", AUDIENCE), (ISSUER, "other")])
async def test_a_token_for_others_is_refused(
    verifier: TokenVerifier, source: Source, clock: Clock, acme_caller: Grant, issuer_name: str, audience: str
) -> None:
    source.issuer = new_issuer(clock, issuer_name, audience)
    token, _ = source.issuer.issue(acme_caller)
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)


async def test_a_token_from_the_future_is_refused(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, clock: Clock
) -> None:
    token, _ = issuer.issue(acme_caller)
    clock.now -= 600
    assert await verifier.verify(token), "auth's clock may be ahead of ours"
    clock.now -= 2
    other, _ = issuer.issue(acme_caller)
    clock.now -= 601
    with pytest.raises(Unauthenticated):
        await verifier.verify(other)


async def test_keys_outlive_auth(
    verifier: TokenVerifier, source: Source, issuer: TokenIssuer, acme_caller: Grant
) -> None:
    await verifier.ready()
    source.away = True
    token, _ = issuer.issue(acme_caller)
    assert (await verifier.verify(token)).tenant == "tenants/acme"
    await verifier.ready()


async def test_without_keys_nobody_enters_and_the_answer_says_try_again(
    verifier: TokenVerifier, source: Source, issuer: TokenIssuer, acme_caller: Grant
) -> None:
    source.away = True
    token, _ = issuer.issue(acme_caller)
    with pytest.raises(Unavailable):
        await verifier.verify(token)
    with pytest.raises(Unavailable):
        await verifier.ready()


async def test_who_has_a_token_of_a_new_key_is_told_to_come_again_while_auth_is_away(
    verifier: TokenVerifier, source: Source, acme_caller: Grant, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is no key of auth's, nobody knows then."""
    monkeypatch.setattr(kit_verifier, "_MIN_REFRESH_S", 0)
    await verifier.ready()
    source.issuer, source.away = new_issuer(clock), True
    token, _ = source.issuer.issue(acme_caller)
    with pytest.raises(Unavailable) as refusal:
        await verifier.verify(token)
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("AUTH_UNREACHABLE", 1)
    source.away = False
    assert (await verifier.verify(token)).tenant == "tenants/acme"


async def test_a_flood_of_unknown_keys_asks_auth_once(
    verifier: TokenVerifier, source: Source, issuer: TokenIssuer, acme_caller: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit_verifier, "_MIN_REFRESH_S", 1000)
    await verifier.ready()
    token, _ = issuer.issue(acme_caller)
    asked = source.asked
    for n in range(50):
        with pytest.raises(Unauthenticated):
            await verifier.verify(changed(header={"kid": f"k{n}"})(token))
    assert source.asked - asked <= 1


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.text(max_size=300) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
async def test_any_text_gets_a_refusal_and_nothing_else(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)


async def test_roles_let_in_or_not(verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant) -> None:
    principal = await verifier.verify(issuer.issue(acme_caller)[0])
    authorize(principal, frozenset({"caller", "auditor"}), METHOD)
    with pytest.raises(PermissionDenied):
        authorize(principal, frozenset({"auditor"}), METHOD)
    with pytest.raises(PermissionDenied):
        authorize(principal, frozenset(), METHOD)


@pytest.mark.parametrize(
    ("methods", "allowed"),
    [
        ((), True),
        ((METHOD,), True),
        (("a.v1.A/Get", METHOD), True),
        (("facetmesh.detection.v1.DetectionService/*",), True),
        (("facetmesh.detection.v1.DetectionService/DetectAll",), False),
        (("facetmesh.detection.v1.DetectionService",), False),
        (("facetmesh.detection.v1.Detection/*",), False),
        (("*",), False),
    ],
)  # fmt: skip
async def test_a_limited_key_calls_its_methods_only(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, methods: tuple[str, ...], *, allowed: bool
) -> None:
    principal = await verifier.verify(issuer.issue(replace(acme_caller, methods=methods))[0])
    with nullcontext() if allowed else pytest.raises(PermissionDenied):
        authorize(principal, frozenset({"caller"}), METHOD)


async def test_a_limited_key_names_its_models_only(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant
) -> None:
    grant = replace(acme_caller, models=("tenants/acme/models/faces",))
    principal = await verifier.verify(issuer.issue(grant)[0])
    access.authorize_models(principal, detection_pb2.DetectRequest(model="tenants/acme/models/faces"))
    access.authorize_models(principal, model_pb2.ListModelsRequest(parent="tenants/acme"))
    with pytest.raises(PermissionDenied):
        access.authorize_models(principal, detection_pb2.DetectRequest(model="tenants/acme/models/faces2"))


async def test_a_token_ends_with_its_key(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, clock: Clock
) -> None:
    token, expires = issuer.issue(replace(acme_caller, expires_s=clock.now + 60))
    assert expires == clock.now + 60
    clock.now = expires + CLOCK_SKEW_S
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)


def test_the_largest_scopes_fit_into_a_token(issuer: TokenIssuer) -> None:
    tenant = "t" * 40
    methods = tuple(f"facetmesh.{n}{'p' * 19}.v1.{'S' * 40}/{'M' * 40}" for n in range(8))
    models = tuple(f"tenants/{tenant}/models/{n}{'m' * 62}" for n in range(8))
    grant = Grant(
        f"tenants/{tenant}/keys/{'k' * 16}", tenant, ("caller", "operator", "auditor"), methods, models, region="r" * 39
    )
    assert len(issuer.issue(grant, certificate="c" * 43)[0]) < MAX_TOKEN_BYTES


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"cnf": {"jkt": "x"}}, id="another-confirmation"), pytest.param({"cnf": {}}, id="no-confirmation"),
        pytest.param({"cnf": "x"}, id="text"), pytest.param({"cnf": {"x5t#S256": 1}}, id="number"),
        pytest.param({"cnf": None}, id="null"), pytest.param({"jti": None}, id="no-id"),
        pytest.param({"jti": 1}, id="id-is-a-number"), pytest.param({"region": ["eu"]}, id="region-is-a-list"),
        pytest.param({"roles": "platform-admin"}, id="roles-is-a-text"),
        pytest.param({"roles": [1]}, id="role-is-a-number"),
        pytest.param({"tenant": 1}, id="tenant-is-a-number"), pytest.param({"iat_us": "1"}, id="time-is-a-text"),
        pytest.param({"exp": "9999999999"}, id="end-is-a-text"), pytest.param({"iss": ["x"]}, id="issuer-is-a-list"),
    ],
)  # fmt: skip
async def test_what_is_signed_and_makes_no_sense_is_refused(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, claims: dict[str, Any]
) -> None:
    good = jwt.decode(issuer.issue(acme_caller)[0], options={"verify_signature": False})
    key = issuer._keys.signing()
    for changed_claims, holds in ((good, True), ({**good, **claims}, False)):
        content = {name: value for name, value in changed_claims.items() if value is not None or name != "jti"}
        header = {"kid": key.kid, "typ": "at+jwt"}
        token = jwt.api_jws.encode(json.dumps(content).encode(), key.private, "ES256", header)
        with nullcontext() if holds else pytest.raises(Unauthenticated) as refusal:
            await verifier.verify(token)
        assert holds or refusal.value.reason == "TOKEN_INVALID"


async def test_a_bound_token_works_with_its_certificate_only(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant
) -> None:
    bound = await verifier.verify(issuer.issue(acme_caller, certificate="thumbprint")[0])
    for presented, holds in (("thumbprint", True), ("another", False), ("", False)):
        set_certificate(presented)
        with nullcontext() if holds else pytest.raises(Unauthenticated) as refusal:
            confirm(bound)
        assert holds or refusal.value.reason == "TOKEN_BOUND"
    set_certificate("another")
    confirm(await verifier.verify(issuer.issue(acme_caller)[0]))  # for any bearer
    set_certificate("")


async def test_one_token_is_revoked_by_its_id(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, clock: Clock
) -> None:
    one, other = (issuer.issue(acme_caller)[0] for _ in range(2))
    principal = await verifier.verify(one)
    verifier.hear([Revocation(principal.token_name, clock.now)])
    with pytest.raises(Unauthenticated) as refusal:
        await verifier.verify(one)
    assert refusal.value.reason == "TOKEN_REVOKED"
    await verifier.verify(other)


async def test_a_flood_of_tokens_fills_no_memory(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facetmesh.kit.verifier._CACHED_TOKENS", 8)
    tokens = [issuer.issue(acme_caller)[0] for _ in range(12)]
    for token in tokens:
        await verifier.verify(token)
    assert len(verifier._verified) == 8


@pytest.mark.parametrize("name", ["tenants/acme/keys/k1", "tenants/acme"])
async def test_a_revoked_token_is_refused_also_from_the_cache_and_a_newer_one_is_not(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, clock: Clock, name: str
) -> None:
    seen, unseen = (issuer.issue(acme_caller)[0] for _ in range(2))
    others = issuer.issue(Grant("tenants/globex/keys/k1", "globex", ("caller",)))[0]
    await verifier.verify(seen)
    verifier.hear([Revocation(name, clock.now)])
    for token in (seen, unseen):
        with pytest.raises(Unauthenticated) as refusal:
            await verifier.verify(token)
        assert refusal.value.reason == "TOKEN_REVOKED"
    await verifier.verify(others)
    clock.now += 0.001  # who rotates a key and uses it at once must get in
    await verifier.verify(issuer.issue(acme_caller)[0])


async def test_a_header_that_was_seen_vouches_for_no_other_token(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant
) -> None:
    token, _ = issuer.issue(acme_caller)
    await verifier.verify(token)
    head, body, signature = token.split(".")
    other = issuer.issue(acme_caller)[0].split(".")
    for forged in (
        f"{head}.{body}.{other[2]}", f"{head}.{other[1]}.{signature}", f"{head}.{body}.", f"{head}.{body}",
        f"{head}.e30.{signature}", f"{head}..{signature}", f"{head}.{body}.{signature}.{signature}",
    ):  # fmt: skip
        with pytest.raises(Unauthenticated) as refusal:
            await verifier.verify(forged)
        assert refusal.value.reason == "TOKEN_INVALID"


@pytest.mark.parametrize("claims", [[], "x", 1, None, {}, {"iss": ISSUER}, {"iss": ISSUER, "aud": [AUDIENCE]}])
async def test_what_auths_key_signed_and_is_no_token_of_ours(
    verifier: TokenVerifier, issuer: TokenIssuer, claims: object
) -> None:
    key = issuer._keys.signing()
    header = {"kid": key.kid, "typ": "at+jwt"}
    payload = json.dumps(claims).encode()
    with pytest.raises(Unauthenticated):
        await verifier.verify(jwt.PyJWS().encode(payload, key.private, "ES256", headers=header))


async def test_the_headers_that_are_known_are_bounded(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant
) -> None:
    head, body, signature = issuer.issue(acme_caller)[0].split(".")
    for number in range(200):  # each is read as the same header
        padded = base64.urlsafe_b64encode(base64.urlsafe_b64decode(head + "==") + b" " * number).rstrip(b"=").decode()
        with pytest.raises(Unauthenticated) if number else nullcontext():
            await verifier.verify(f"{padded}.{body}.{signature}")
    assert len(verifier._headers) <= 64


async def test_a_token_is_as_old_as_the_look_at_its_key(
    verifier: TokenVerifier, issuer: TokenIssuer, acme_caller: Grant, clock: Clock
) -> None:
    looked_s = clock.now
    clock.now += 2
    token, _ = issuer.issue(replace(acme_caller, at_s=looked_s))
    verifier.hear([Revocation("tenants/acme/keys/k1", looked_s + 1)])  # between the look and the token
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)
