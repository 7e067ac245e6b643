"""KEDA's questions to the fusion of a real mesh, which answers out of the real store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from facetmesh.externalscaler import externalscaler_pb2 as keda
from facetmesh.externalscaler.externalscaler_pb2_grpc import ExternalScalerStub
from facetmesh.fusion.scaler_servicer import METRIC

from .rig import until

if TYPE_CHECKING:
    from .conftest import Mesh

DEADLINE_S = 60


def test_keda_is_told_how_much_work_there_is(mesh: Mesh) -> None:
    *_, port = (line["scaler_port"] for line in mesh.log("fusion") if line["message"] == "serving KEDA")
    asked = keda.ScaledObjectRef(scalerMetadata={"jobsPerReplica": "4", "activationJobs": "1000000"})
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        scaler = ExternalScalerStub(channel)
        (spec,) = scaler.GetMetricSpec(asked, timeout=DEADLINE_S).metricSpecs
        assert spec.metricName == METRIC
        request = keda.GetMetricsRequest(scaledObjectRef=asked, metricName=spec.metricName)

        def known() -> bool:
            try:
                (value,) = scaler.GetMetrics(request, timeout=DEADLINE_S).metricValues
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - it has not looked yet
                return False
            return bool(value.metricValueFloat >= 0)

        until(known, "the queue has been read")
        assert not scaler.IsActive(asked, timeout=DEADLINE_S).result
