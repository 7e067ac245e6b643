"""Face fusion as an operation that can be watched."""
