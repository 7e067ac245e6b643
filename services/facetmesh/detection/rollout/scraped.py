"""What versions' calls did, as Prometheus or the replicas' own metrics tell it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from facetmesh.detection.rollout.samples import BOUNDS_S, SCORE_BINS, Histogram, Sample, Samples
from facetmesh.detection.rollout.sequential import Tally
from facetmesh.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from facetmesh.detection.rollout.record import Rollout

Series = tuple[str, "Mapping[str, str]", float]
"""A metric's name, its labels, and its value."""
_PREFIX = "facetmesh_version_"
_TIMEOUT_S = 5.0
_NOT_METRICS = (ValueError, OverflowError, LookupError, TypeError, AttributeError)
"""What reading another's words ends in: a proxy's page, say, or numbers that are none."""


class Source(Protocol):
    """Where metrics are."""

    async def series(self, rollout: Rollout) -> Mapping[str, Sequence[Series]]:
        """Each replica's series of the rollout's versions, and maybe others."""
        ...


class Scraped:
    """Reads a rollout's counters from a source.

    Args:
        source: Where metrics are.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    async def read(self, rollout: Rollout) -> dict[str, Samples]:
        """Each replica's counters of both versions.

        Raises:
            Unavailable: METRICS_UNAVAILABLE.
        """
        try:
            return {
                replica: _samples(series, rollout) for replica, series in (await self._source.series(rollout)).items()
            }
        except _NOT_METRICS as error:
            raise Unavailable(
                f"What answers in the place of metrics is none: {type(error).__name__}.", reason="METRICS_UNAVAILABLE"
            ) from error


class Prometheus:
    """A Prometheus, or what answers like one.

    Args:
        session: Asks it.
        url: Where it is, without /api.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def series(self, rollout: Rollout) -> Mapping[str, Sequence[Series]]:
        """Each replica's series of the rollout's versions."""
        # None of these can hold a quote: they are ids.
        query = (
            f'{{__name__=~"{_PREFIX}.+", tenant="{rollout.tenant_id}", model="{rollout.model_id}", '
            f'version=~"{rollout.stable}|{rollout.candidate}"}}'
        )
        answer = json.loads(await _fetch(self._session, f"{self._url}/api/v1/query", {"query": query}))
        found: dict[str, list[Series]] = defaultdict(list)
        for one in answer["data"]["result"]:
            labels = one["metric"]
            found[labels.get("instance", "")].append((labels["__name__"], labels, float(one["value"][1])))
        return found


class Endpoints:
    """The replicas' own metrics, where no Prometheus gathers them.

    Args:
        session: Asks them.
        urls: Where each replica's metrics are.
    """

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._session = session
        self._urls = urls

    async def series(self, rollout: Rollout) -> Mapping[str, Sequence[Series]]:
        """Each replica's series."""
        del rollout
        return {
            url: [
                (one.name, one.labels, one.value)
                for family in text_string_to_metric_families(await _fetch(self._session, url))
                for one in family.samples
                if one.name.startswith(_PREFIX)
            ]
            for url in self._urls
        }


def _samples(series: Sequence[Series], rollout: Rollout) -> Samples:
    """Both versions' counters, out of a replica's series."""
    wanted = {"tenant": rollout.tenant_id, "model": rollout.model_id}
    ours = [one for one in series if wanted.items() <= one[1].items()]
    stable, candidate = (
        sample(one for one in ours if one[1].get("version") == str(number))
        for number in (rollout.stable, rollout.candidate)
    )
    return Samples(stable, candidate)


def sample(series: Iterable[Series]) -> Sample:
    """One version's counters, out of its series."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for name, labels, value in series:
        told = labels.get("outcome") or labels.get("le") or labels.get("score") or labels.get("class_id") or ""
        values[name.removeprefix(_PREFIX)][told] = value
    failed, succeeded = (values["calls_total"].get(outcome, 0.0) for outcome in ("failed", "ok"))
    classes = [0] * (1 + max((int(class_id) for class_id in values["classes_total"]), default=-1))
    for class_id, count in values["classes_total"].items():
        classes[int(class_id)] = int(count)
    scores = [int(values["scores_total"].get(f"{index / SCORE_BINS:.1f}", 0)) for index in range(SCORE_BINS)]
    return Sample(
        Tally(int(failed + succeeded), failed),
        _histogram(values["latency_seconds_bucket"]),
        _histogram(values["call_compute_seconds_bucket"]),
        Tally(int(values["shadow_calls_total"].get("", 0)), values["shadow_agreement_total"].get("", 0.0)),
        tuple(scores),
        tuple(classes),
        int(values["empty_total"].get("", 0)),
    )


def _histogram(cumulative: Mapping[str, float]) -> Histogram:
    """Counts out of cumulative ones. The bounds' text is whatever Prometheus makes of it."""
    below = [0.0] * (len(BOUNDS_S) + 1)
    for bound, count in cumulative.items():
        below[bisect_left(BOUNDS_S, float(bound) * (1 - 1e-4))] = count
    return Histogram(tuple(int(upper - lower) for lower, upper in pairwise([0.0, *below])))


async def _fetch(session: aiohttp.ClientSession, url: str, query: Mapping[str, str] | None = None) -> str:
    try:
        async with session.get(url, params=query, timeout=aiohttp.ClientTimeout(_TIMEOUT_S)) as answer:
            answer.raise_for_status()
            return await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(
            f"Metrics cannot be had: {type(error).__name__}.", reason="METRICS_UNAVAILABLE"
        ) from error
