"""Outputs: what other programs read."""
