"""Unit tests: a file mirrors a module."""
