"""The sections of a run file; `pipeline.config` puts them together."""
