"""A demonstration that needs no key, no server and no network.

It makes an archive of a few megabytes with facts hidden in it, asks a question whose answer has
to be put together from them, and answers it with a scripted model. Everything else is real: the
run, its log, the REPL, the sub-model's parallel calls. The answer is worked out from the text by
the model's code: another seed gives another archive and another right answer.
"""

from effects.demo.haystack import Haystack, make_haystack
from effects.demo.model import root_model, sub_model

__all__ = ["Haystack", "is_right", "make_haystack", "root_model", "sub_model"]


def is_right(answer: str, haystack: Haystack) -> bool:
    """Whether an answer begins with the number that was planted."""
    return answer.split()[:1] == [str(haystack.truth)]
