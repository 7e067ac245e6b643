"""Strangers' bytes against our parsers, led by coverage: `make fuzz`."""
