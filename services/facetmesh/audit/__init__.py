"""The append-only log of every use, and its proofs."""
