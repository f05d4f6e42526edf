"""Rotary positions and local multi-query attention."""
