"""`facetmesh demo`."""
def demo() -> None:
    """Show."""
