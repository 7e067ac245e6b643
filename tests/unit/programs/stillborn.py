"""A program that cannot be imported, for the pool's tests."""

raise RuntimeError("it cannot be imported")
