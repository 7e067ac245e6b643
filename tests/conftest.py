"""What all tests share."""

from __future__ import annotations

import grpc.aio
from hypothesis import HealthCheck, settings

# Each run tries the same examples, so that whether a change is sound does not depend on a run's luck, and none is
# judged by its time, which says more about the machine. `--hypothesis-profile=exploring` tries others.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("exploring", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

# gRPC ends its poller when the last channel of the process goes, and then waits for ever if a
# call of an earlier test was left half done. One more reference keeps the poller until the end.
grpc.aio.init_grpc_aio()
