"""Many tokens in one compiled loop."""
