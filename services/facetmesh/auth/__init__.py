"""Tenants, keys and tokens."""
