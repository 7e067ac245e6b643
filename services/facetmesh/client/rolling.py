"""The client's calls about rollouts."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from facetmesh.client import calls
from facetmesh.detection.v1 import rollout_pb2
from facetmesh.kit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence


class Rolling(ABC):
    """What AsyncClient can do with rollouts."""

    _rollouts: Any  # rollout_pb2_grpc.RolloutServiceStub, whose stubs differ for grpc.aio

    async def start_rollout(
        self,
        model: str,
        *,
        to: str,
        steps: Sequence[tuple[int, int]] = (),
        window_s: float | None = None,
        patience_s: float | None = None,
        limits: rollout_pb2.Rollout.Limits | None = None,
        rollout_id: str | None = None,
    ) -> rollout_pb2.Rollout:
        """Starts to give a model's new version its calls.

        Args:
            model: The model's name or id.
            to: The version, by number or alias.
            steps: Of 100 calls, how many it answers and how many it gets a copy of; the service's own when empty.
                Where the first has calls, the service has a look at the stable version's and 1 percent go before it.
            window_s: How long a step lasts at the least, in seconds.
            patience_s: After which a step that has not passed is given up, in seconds.
            limits: How much worse it may be.
            rollout_id: The last part of the rollout's name; a random one when None.
        """
        rollout = rollout_pb2.Rollout(
            version=to,
            steps=[rollout_pb2.Rollout.Step(percent=percent, shadow_percent=shadow) for percent, shadow in steps],
            limits=limits,
        )
        if window_s is not None:
            rollout.window.FromMilliseconds(round(window_s * 1000))
        if patience_s is not None:
            rollout.patience.FromMilliseconds(round(patience_s * 1000))
        request = rollout_pb2.CreateRolloutRequest(
            parent=await self._name("models", model), rollout_id=rollout_id or f"r{secrets.token_hex(6)}",
            rollout=rollout,
        )  # fmt: skip
        return await calls.result(self._rollouts.CreateRollout(request))

    async def get_rollout(self, model: str, rollout: str = "") -> rollout_pb2.Rollout:
        """Returns a rollout of a model by its id; the newest one when empty.

        Raises:
            NotFound: ROLLOUT_NOT_FOUND.
        """
        if rollout:
            request = rollout_pb2.GetRolloutRequest(name=await self._rollout(model, rollout))
            return await calls.result(self._rollouts.GetRollout(request))
        found = await self.list_rollouts(model)
        if not found:
            raise NotFound("The model has no rollout.", reason="ROLLOUT_NOT_FOUND")
        return max(found, key=lambda one: one.create_time.ToMicroseconds())

    async def list_rollouts(self, model: str, *, limit: int | None = None) -> list[rollout_pb2.Rollout]:
        """A model's rollouts, in the order of their ids."""
        request = rollout_pb2.ListRolloutsRequest(parent=await self._name("models", model))
        return await calls.pages(self._rollouts.ListRollouts, request, "rollouts", limit)

    async def pause_rollout(self, model: str, rollout: str) -> rollout_pb2.Rollout:
        """Has a rollout stay at its step; a version that fails goes back all the same."""
        request = rollout_pb2.PauseRolloutRequest(name=await self._rollout(model, rollout))
        return await calls.result(self._rollouts.PauseRollout(request))

    async def resume_rollout(self, model: str, rollout: str) -> rollout_pb2.Rollout:
        """Has a rollout go on after a pause."""
        request = rollout_pb2.ResumeRolloutRequest(name=await self._rollout(model, rollout))
        return await calls.result(self._rollouts.ResumeRollout(request))

    async def promote_rollout(self, model: str, rollout: str) -> rollout_pb2.Rollout:
        """Gives the new version all calls at once, whatever its gates say."""
        request = rollout_pb2.PromoteRolloutRequest(name=await self._rollout(model, rollout))
        return await calls.result(self._rollouts.PromoteRollout(request))

    async def abort_rollout(self, model: str, rollout: str) -> rollout_pb2.Rollout:
        """Gives the stable version all calls back."""
        request = rollout_pb2.AbortRolloutRequest(name=await self._rollout(model, rollout))
        return await calls.result(self._rollouts.AbortRollout(request))

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""

    async def _rollout(self, model: str, rollout: str) -> str:
        return f"{await self._name('models', model)}/rollouts/{rollout}"
