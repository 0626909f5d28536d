"""A server for one run: its pages over the live folder, an API, and attempts at its units."""
