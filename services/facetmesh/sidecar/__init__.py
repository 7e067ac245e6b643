"""The part of Dapr's API that facetmesh uses, over one SQLite file."""
