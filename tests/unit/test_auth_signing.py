"""The keys that sign tokens change without a gap."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from facetmesh.auth.signing import SigningKeys, keep_current
from facetmesh.auth.tokens import TokenIssuer
from facetmesh.kit import verifier as kit_verifier
from facetmesh.kit.errors import FailedPrecondition, Unauthenticated, Unavailable
from facetmesh.kit.verifier import TokenVerifier

from .conftest import AUDIENCE, ISSUER, pem

if TYPE_CHECKING:
    from facetmesh.auth.grants import Grant

    from .conftest import Clock

LEAD_S = 90


def kid(token: str) -> str:
    """Which key signed."""
    return str(jwt.get_unverified_header(token)["kid"])


def published(keys: SigningKeys) -> list[str]:
    """The keys that verify."""
    return [key["kid"] for key in json.loads(keys.jwks())["keys"]]


def test_a_new_key_is_published_before_it_signs(clock: Clock) -> None:
    old, new = pem(), pem()
    keys = SigningKeys(old, clock, lead_s=LEAD_S)
    before = keys.signing().kid
    keys.use(new + old)
    assert len(published(keys)) == 2
    clock.now += LEAD_S - 1
    keys.use(new + old)  # as it is read again, the time goes on
    assert keys.signing().kid == before
    clock.now += 1
    assert keys.signing().kid == published(keys)[0] != before


def test_a_key_that_was_taken_away_signs_nothing_more(clock: Clock) -> None:
    keys = SigningKeys(pem(), clock, lead_s=LEAD_S)
    leaked = keys.signing().kid
    keys.use(pem())
    assert [keys.signing().kid] == published(keys) != [leaked]


def test_no_private_part_is_published(clock: Clock) -> None:
    (key,) = json.loads(SigningKeys(pem(), clock, lead_s=LEAD_S).jwks())["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}


@pytest.mark.parametrize("text", ["", "x", pem()[:80], pem().replace("M", "N", 3)])
def test_what_is_no_key_is_refused_and_the_one_before_stays(clock: Clock, text: str) -> None:
    keys = SigningKeys(pem(), clock, lead_s=LEAD_S)
    before = keys.jwks()
    with pytest.raises(FailedPrecondition) as refusal:
        keys.use(text)
    assert refusal.value.reason == "SECRET_INVALID"
    assert keys.jwks() == before


def test_another_curve_is_refused(clock: Clock) -> None:
    other = generate_private_key(SECP384R1())
    text = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(FailedPrecondition):
        SigningKeys(text, clock, lead_s=LEAD_S)


async def test_the_secret_is_read_again_also_after_it_could_not_be(clock: Clock) -> None:
    keys = SigningKeys(pem(), clock, lead_s=0)
    before, new, again = keys.signing().kid, pem(), asyncio.Event()
    answers = iter([Unavailable("away"), "no key", new])

    async def read() -> str:
        answer = next(answers, new)
        if isinstance(answer, Exception):
            raise answer
        if answer == new and keys.signing().kid != before:
            again.set()
        return answer

    reading = asyncio.create_task(keep_current(keys, read, 0))
    async with asyncio.timeout(60):
        await again.wait()
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading


async def test_tokens_of_both_keys_are_accepted_and_those_of_a_withdrawn_one_are_not(
    clock: Clock, acme_caller: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pem(), pem()
    keys = SigningKeys(old, clock, lead_s=LEAD_S)
    issuer = TokenIssuer(keys, issuer=ISSUER, audience=AUDIENCE, lifetime_s=600, clock=clock)
    verifier = TokenVerifier(issuer, issuer=ISSUER, audience=AUDIENCE, clock=clock)
    monkeypatch.setattr(kit_verifier, "_MIN_REFRESH_S", 0)
    monkeypatch.setattr(kit_verifier, "KEYS_REFRESH_S", 0)
    first = issuer.issue(acme_caller)[0]
    await verifier.verify(first)
    keys.use(new + old)
    clock.now += LEAD_S
    second = issuer.issue(acme_caller)[0]
    assert kid(first) != kid(second)
    for token in (first, second):
        await verifier.verify(token)
    keys.use(new)
    fresh = asyncio.create_task(verifier.keep_fresh())
    async with asyncio.timeout(60):
        while True:
            try:
                await verifier.verify(first)
            except Unauthenticated:
                break
            await asyncio.sleep(0)
    fresh.cancel()
    await verifier.verify(second)
