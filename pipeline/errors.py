"""Errors that a person can act on."""


class UserError(Exception):
    """A mistake in the input, told without a traceback; the command line exits with 2.

    The message names the value, what was expected, and what to do next.
    """


class ClaimLost(Exception):
    """Another worker has taken over a shard, or published it: what was computed for it is dropped, and nothing is wrong."""


def nearest(value: str, allowed: list[str]) -> str:
    """A phrase that lists what is allowed and, where one is close, the likely intention."""
    import difflib

    close = difflib.get_close_matches(value, allowed, n=1)
    listed = ", ".join(allowed)
    return f"did you mean {close[0]!r}? Allowed: {listed}" if close else f"allowed: {listed}"


def stops_the_shard(error: Exception) -> bool:
    """Whether an error is not one unit's own: the user's, or of memory, disk or device, where another try may succeed."""
    return isinstance(error, (UserError, MemoryError, OSError)) or type(error).__name__ == "OutOfMemoryError"
