"""`facetmesh doctor`."""
def doctor() -> None:
    """Show."""
