"""A fingerprint is the same for equal inputs and another one for any difference."""

import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.execution.survey import differences
from pipeline.storage.footers import fingerprint, git_commit

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
inputs = st.dictionaries(st.text(max_size=5), values, max_size=4)


@given(inputs, inputs)
def test_a_fingerprint_sees_every_difference_and_not_the_order_of_keys(
    a: dict[str, object], b: dict[str, object]
) -> None:
    assert fingerprint(a) == fingerprint(dict(reversed(a.items())))
    if differences(a, b):
        assert fingerprint(a) != fingerprint(b)


def test_differences_name_the_path_and_both_values() -> None:
    old = {"settings": {"seed": 0, "same": [1]}, "gone": 1}
    new = {"settings": {"seed": 1, "same": [1]}, "new": "x"}
    assert differences(old, new) == ["gone: 1 -> None", "new: None -> 'x'", "settings.seed: 0 -> 1"]


def test_the_commit_is_a_hash_or_unknown() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", git_commit())
