"""The embedded sidecar: the part of Dapr's API that facetmesh uses, over one SQLite file.

    servicer.py       protobuf in, a call below, protobuf out
    ├── state.py      keys and values, with etags
    ├── broker.py     publishing, and who subscribes
    │   ├── queue.py      the messages of one topic for one app, until they are settled
    │   └── delivery.py   brings them to the app, through channel.py
    ├── secrets.py    secrets from files
    └── store.py      SQLite, one thread, many writers in one commit

`resources.py` reads the same YAML as daprd. Everything that a service can see
is meant to be as daprd 1.18 does it; tests/contract holds both to the same cases.
"""
