"""The gateway's configuration: a template, and what follows from the protos."""
