"""How long tests wait for what is to happen."""

LIMIT = 120.0
"""Seconds in which what a test waits for happens on the busiest machine; pytest's own limit for a test is longer."""
