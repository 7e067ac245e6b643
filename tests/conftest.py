"""What all tests share."""

from __future__ import annotations

import grpc.aio

# gRPC ends its poller when the last channel of the process goes, and then waits for ever if a
# call of an earlier test was left half done. One more reference keeps the poller until the end.
grpc.aio.init_grpc_aio()
