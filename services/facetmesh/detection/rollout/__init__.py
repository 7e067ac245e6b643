"""Rollouts: a model's new version gets its calls step by step, and goes back by itself."""
