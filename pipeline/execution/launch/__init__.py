"""Spread a run over processes and machines: a worker is the plain command line with a frozen run file, whoever starts it."""
