"""How much is tried: NEUROGLOSS_TESTS is `fast` (the default), `slow` for what that leaves out, or `all`."""

import os

SLOW = {"fast": "none", "slow": "only", "all": "all"}[os.environ.get("NEUROGLOSS_TESTS", "fast")]
"""Which slow tests are run."""


def examples(count: int) -> int:
    """Examples of a property: all of them in the slow tier, some in the fast one."""
    return count if SLOW != "none" else max(10, count // 20)
