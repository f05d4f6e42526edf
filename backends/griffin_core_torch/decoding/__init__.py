"""Decoding: many tokens in one call, a few tensor operations each."""
