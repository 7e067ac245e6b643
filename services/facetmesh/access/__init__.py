"""Access rules that stand on the methods."""
