"""A service's sidecar: state, events and secrets through Dapr's API.

It does not matter here which one listens, daprd or the embedded sidecar. Errors
are ours (`kit.errors`), every call has a deadline, nothing is retried: that is
for whoever knows whether a repeat does harm.
"""

from facetmesh.kit.dapr.client import DaprSidecar
from facetmesh.kit.dapr.inhand import InHand
from facetmesh.kit.dapr.publisher import Outgoing, Publisher
from facetmesh.kit.dapr.receiver import Disposition, Event, EventReceiver, Handler
from facetmesh.kit.dapr.secrets import Secrets
from facetmesh.kit.dapr.state import Delete, Entry, Put, State
from facetmesh.kit.dapr.together import Together

__all__ = [
    "DaprSidecar", "Delete", "Disposition", "Entry", "Event", "EventReceiver", "Handler", "InHand", "Outgoing",
    "Publisher", "Put", "Secrets", "State", "Together",
]  # fmt: skip
