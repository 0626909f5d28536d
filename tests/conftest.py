"""Property tests try the same examples in every run, so that a failure is one of the change and not of the day."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
