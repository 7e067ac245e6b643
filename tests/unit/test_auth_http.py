"""The keys that verify tokens, over HTTP."""

from __future__ import annotations

import json

import aiohttp
import pytest

from facetmesh.auth.http import PATH, published
from facetmesh.auth.signing import SigningKeys
from facetmesh.kit.errors import Unavailable

from .conftest import pem


async def test_the_keys_are_there_and_nothing_else() -> None:
    keys = SigningKeys(pem(), lambda: 0.0, lead_s=0)

    async def jwks() -> str:
        return keys.jwks()

    async with published(jwks, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        async with client.get(PATH) as answer:
            assert answer.status == 200
            assert answer.content_type == "application/jwk-set+json"
            assert answer.headers["Cache-Control"] == "public, max-age=60"
            found = json.loads(await answer.text())["keys"]
            assert [set(key) >= {"kid", "kty", "crv", "x", "y"} and "d" not in key for key in found] == [True]
        for method, path, wanted in [("POST", PATH, 405), ("GET", "/", 404), ("GET", PATH + "/..", 404)]:
            async with client.request(method, path) as answer:
                assert answer.status == wanted
        with pytest.raises(Unavailable, match=f"Port {port}"):
            async with published(jwks, "127.0.0.1", port):
                pass
