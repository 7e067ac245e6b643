"""What servicers are added to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from facetmesh.detection.v1 import detection_pb2_grpc
from facetmesh.kit.handlers import Generic

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Server:
    def __init__(self) -> None:
        self.looked_up: list[str] = []
        self.registered: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self.looked_up += [handler.service_name() for handler in handlers]

    def add_registered_method_handlers(self, service_name: str, _: object) -> None:
        self.registered.append(service_name)


def test_methods_are_looked_up_and_none_is_registered() -> None:
    server = _Server()
    servicer = detection_pb2_grpc.DetectionServiceServicer()
    detection_pb2_grpc.add_DetectionServiceServicer_to_server(servicer, cast("Any", Generic(cast("Any", server))))
    assert server.looked_up == ["facetmesh.detection.v1.DetectionService"]
    assert server.registered == []
