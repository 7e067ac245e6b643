"""Tests against a real mesh."""
