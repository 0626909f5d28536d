"""The tiers of the tests, and what all of them share.

The fast tier leaves out tests marked `slow` and tries a few examples of each property. The slow tier runs the tests marked `slow`, and
the properties again with all their examples. Either tries the same examples in every run, so that a failure is one of the
change and not of the day.

A shell lets what it starts in the background ignore Ctrl-C, and what is started from there inherits that: the tests that press it would
wait for ever. A handler of our own is not inherited, so the programs under test start as they do for a user.
"""

import os
import signal

import pytest
from hypothesis import is_hypothesis_test, settings

from tests.tiers import SLOW, examples

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=examples(100))
settings.load_profile("repeatable")

signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has a core of its own


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not of the tier; a test that is named on the command line is run in any."""
    if any("::" in argument for argument in config.args):
        return
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        slow = item.get_closest_marker("slow") is not None
        again = SLOW == "only" and is_hypothesis_test(getattr(item, "obj", None))
        wanted = SLOW == "all" or (slow or again if SLOW == "only" else not slow)
        (kept if wanted else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept
