"""The log in memory owes what every log owes, but for what only a file can do."""

from log_contract import LogContract
from log_kinds import Plain


class TestMemoryLog(Plain, LogContract):
    test_a_batch_is_appended_whole_or_not_at_all = None
    """Nothing is encoded, so nothing is found that can't be."""
    test_the_long_texts_of_events_are_kept_texts = None
    """Events are kept as they are."""
