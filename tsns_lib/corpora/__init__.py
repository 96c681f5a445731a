"""Corpora by name, by path, from the hub, or generated."""
