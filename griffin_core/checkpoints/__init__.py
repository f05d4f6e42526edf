"""Checkpoints on disk: the native format, its parts, and conversion. NumPy only."""
