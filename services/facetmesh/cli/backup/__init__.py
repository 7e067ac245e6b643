"""Copies of a mesh's state folder, taken while it serves, and the way back."""
