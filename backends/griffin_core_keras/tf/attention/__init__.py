"""Local (or global) multi-query attention with a ring cache."""
