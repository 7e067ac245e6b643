"""Isolated processes for native code, and the engines that run in them."""
