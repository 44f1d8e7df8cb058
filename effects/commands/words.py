"""What the library says to programs, in the words of the command line."""

import re
from collections.abc import Generator
from contextlib import contextmanager

from rlm_fsm.errors import UsageError

_OUR_WORDS = (
    (r"pass it again as context=\.", "give its files with --context."),
    (r"Pass the same texts as context=, or", "Give the same files with --context, or"),
    (r"pass the same functions again as tools=", "give them again with --tools MODULE:NAME"),
    (r"^at=(\d+)", r"--at \1"),
    (r"pass a policy with a larger (\w+)", r"a larger \1 is needed"),
)
"""Names of arguments -> what people type."""


@contextmanager
def in_our_words() -> Generator[None]:
    """Say what is wrong with the names that people type."""
    try:
        yield
    except UsageError as error:
        message = str(error)
        for theirs, ours in _OUR_WORDS:
            message = re.sub(theirs, ours, message)
        raise UsageError(message) from error
