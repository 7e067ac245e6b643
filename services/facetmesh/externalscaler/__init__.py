"""Generated from protos/; edit those and run `make protos`."""
