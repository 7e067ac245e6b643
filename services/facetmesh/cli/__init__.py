"""The facetmesh command."""
