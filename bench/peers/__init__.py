"""What runs in the peers' environments, without facetmesh."""
