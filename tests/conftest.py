"""Property tests try the same examples in every run, so that a failure is one of the change and not of the day.

A shell lets what it starts in the background ignore Ctrl-C, and what is started from there inherits that: the tests that press it would
wait for ever. A handler of our own is not inherited, so the programs under test start as they do for a user.
"""

import signal

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

signal.signal(signal.SIGINT, signal.default_int_handler)
