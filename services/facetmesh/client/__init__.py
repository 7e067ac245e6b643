"""Typed clients of the public API."""
