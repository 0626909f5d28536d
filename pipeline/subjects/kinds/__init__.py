"""Kinds of units, and what they are read from. `module_kinds.py` lists them."""
