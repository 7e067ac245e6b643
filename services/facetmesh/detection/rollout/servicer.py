"""The gRPC face of rollouts: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facetmesh.detection.rollout import messages
from facetmesh.detection.rollout.record import Order
from facetmesh.detection.v1 import rollout_pb2, rollout_pb2_grpc
from facetmesh.kit import audit
from facetmesh.kit.errors import NotFound
from facetmesh.kit.index import page

if TYPE_CHECKING:
    from facetmesh.detection.rollout.rollouts import Rollouts


class RolloutServicer(rollout_pb2_grpc.RolloutServiceServicer):
    """Serves facetmesh.detection.v1.RolloutService.

    Args:
        rollouts: What can be done with rollouts.
    """

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    async def CreateRollout(self, request: rollout_pb2.CreateRolloutRequest, _: Any) -> rollout_pb2.Rollout:
        """Starts a rollout."""
        name = f"{request.parent}/rollouts/{request.rollout_id}"
        asked = request.rollout
        begun = await self._rollouts.start(
            name, to=asked.version, plan=messages.plan(asked), limits=messages.limits(asked.limits)
        )
        audit.current().describe(resource=name, model_version=f"{request.parent}/versions/{begun.candidate}")
        return messages.rollout(begun)

    async def GetRollout(self, request: rollout_pb2.GetRolloutRequest, _: Any) -> rollout_pb2.Rollout:
        """Returns a rollout."""
        return messages.rollout(await self._rollouts.get(request.name))

    async def ListRollouts(
        self, request: rollout_pb2.ListRolloutsRequest, _: Any
    ) -> rollout_pb2.ListRolloutsResponse:
        """Lists a model's rollouts."""
        chosen, token = page(await self._rollouts.ids(request.parent), request.page_size, request.page_token)
        response = rollout_pb2.ListRolloutsResponse(next_page_token=token)
        for rollout_id in chosen:
            try:
                found = await self._rollouts.get(f"{request.parent}/rollouts/{rollout_id}")
            except NotFound:
                continue  # the index is a hint
            response.rollouts.append(messages.rollout(found))
        return response

    async def PauseRollout(self, request: rollout_pb2.PauseRolloutRequest, _: Any) -> rollout_pb2.Rollout:
        """Stays at the step that it is at."""
        return await self._ordered(request.name, Order.PAUSE)

    async def ResumeRollout(self, request: rollout_pb2.ResumeRolloutRequest, _: Any) -> rollout_pb2.Rollout:
        """Goes on after a pause."""
        return await self._ordered(request.name, Order.RUN)

    async def PromoteRollout(self, request: rollout_pb2.PromoteRolloutRequest, _: Any) -> rollout_pb2.Rollout:
        """Gives the new version all calls."""
        return await self._ordered(request.name, Order.PROMOTE)

    async def AbortRollout(self, request: rollout_pb2.AbortRolloutRequest, _: Any) -> rollout_pb2.Rollout:
        """Gives the stable version all calls back."""
        return await self._ordered(request.name, Order.ABORT)

    async def _ordered(self, name: str, order: Order) -> rollout_pb2.Rollout:
        return messages.rollout(await self._rollouts.order(name, order))
