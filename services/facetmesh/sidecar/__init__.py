"""The embedded sidecar: the part of Dapr's API that facetmesh uses, over one SQLite file.

    servicer.py       protobuf in, a call below, protobuf out
    ├── state.py      keys and values, with etags
    ├── broker.py     publishing, and who subscribes
    │   ├── queue.py      the messages of one topic for one app, until they are settled
    │   └── delivery.py   brings them to the app, through channel.py
    ├── secrets.py    secrets from files
    └── store.py      SQLite, one thread, many writers in one commit

`resources.py` reads the same YAML as daprd. What a service can see is as daprd
1.18 does it, and tests/contract holds both to the same cases, but for this:

- A full disk is RESOURCE_EXHAUSTED, not INTERNAL.
- A bulk publish is accepted whole or not at all; there are no failed entries.
- An app that is not there is waited for; that does not count as a failure. One
  that goes away five times over the same event gets that event no more.
- Binary data of a CloudEvent is there in a bulk delivery too; daprd leaves it
  out, so our subscriptions ask for the envelope as it was published (rawPayload).
- What cannot be handled and has no dead-letter topic is dropped, and counted.
"""
