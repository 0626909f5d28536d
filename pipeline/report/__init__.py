"""Pages of a run: a folder that a browser opens from disk, without a server and without a network."""
