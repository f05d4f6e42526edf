"""The demonstration behind ``griffin demo``: one run of everything, and a report of it."""
