"""Checks receipts offline; imports nothing of the server."""
