"""Prompt texts as data: a `Profile` is what one protocol tells models and understands of them.

A profile is a value. To have one of your own, `dataclasses.replace` an existing one.
Texts are versioned by hand and named by hash, so that a log says which words a run was given.
"""

from dataclasses import dataclass

from rlm_fsm.values import ContextInfo, text_hash

_PYRLM_SYSTEM = """\
You answer a question about a text that is too long to be shown to you. The text is data in a \
Python session; you work on it by writing code, one turn at a time, and see what your code prints.

Each turn, reply with ONE fenced Python block:

```python
print(peek(500))
```

What the session holds:
- P: the whole text (str). ctx: the same as an object with
  ctx.find(pattern, regex=False, max_matches=20, case_sensitive=True) -> [(start, end, text)],
  ctx.slice(start, end), ctx.chunk(size, overlap=0) -> [(start, end, text)],
  ctx.num_documents(), ctx.get_document(i), ctx.document_lengths(),
  ctx.chunk_documents(docs_per_chunk=10) -> [(i, j, [texts])].
- peek(n=2000), tail(n=2000): the first and last n characters. lenP(): the length.
- extract_after(marker, max_len=128): the first word after a marker, or None.
- llm_query(text): ask a sub-model that sees only the text you pass. Returns its reply (str).
- llm_batch(prompts): ask many prompts at once, in parallel; replies in the same order.
- ask(question, text), ask_chunks(question, chunks), ask_chunks_first(question, chunks),
  pick_first_answer(answers): the same for one question over pieces of the text.
- map_chunks(question, chunks), reduce_tree(texts, question), classify_all(items, labels), \
vote(prompt, n=5): many subcalls by one call. They print their number and cost first, and raise \
SubcallLimitError before the first one when the budget doesn't allow all.
- SHOW_VARS(): your variables.
Variables, functions and imports survive from turn to turn, also after an error. The value of a \
last bare expression is printed.

How to work:
- Look before you read: print lengths and samples, search with ctx.find or re, then narrow down.
- Printed output is cut after a few thousand characters. Keep results in variables.
- A sub-model reads about 500,000 characters well. Prefer a few large pieces to many small ones, \
and llm_batch to a loop. Give each prompt all it needs: the sub-model sees nothing else.
- Do counting, sorting and exact matching in code; use sub-models for meaning.

To finish, reply with one line outside any code block:
FINAL: your answer
or, when the answer is in a variable that an earlier turn has set:
FINAL_VAR: variable_name
"""

_PYRLM_SUBCALL = """\
You are a sub-LLM of a larger task. Answer from the given text alone. Be brief and exact: no \
preamble, no explanation unless it is asked for. If the text doesn't hold the answer, reply with \
NO_ANSWER."""

_PYRLM_RECURSIVE = """\
You are a sub-LLM that works on one piece of a larger task, in a Python session of its own. The \
piece is the variable P (also ctx.find, ctx.slice, ctx.chunk, peek, tail, llm_query, llm_batch, \
ask). Each turn, reply with ONE fenced Python block; you see what it prints. You have few turns. \
To finish, reply with one line outside any code block:
FINAL: your answer
or FINAL_VAR: variable_name
If the piece doesn't hold the answer, finish with FINAL: NO_ANSWER
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One protocol, as data."""

    name: str
    version: int
    system: str
    """System prompt of the root."""
    subcall_system: str
    """System prompt of a plain subcall. Programs match on its first words."""
    recursive_system: str
    """System prompt of a recursive sub-run."""
    fences: tuple[str, ...]
    """Languages of fenced blocks that are run; the empty text is a fence without a language."""
    bare_code: bool
    """Whether a reply without any fence may be code as a whole."""
    output_chars: int
    """Characters of a turn's output that the model is shown, from the head."""
    error_chars: int
    """Characters of an error that the model is shown, from the tail."""

    @property
    def hash(self) -> str:
        """Names these texts: the first 16 hex digits of the hash over all of them."""
        return text_hash("\0".join((self.system, self.subcall_system, self.recursive_system)))[:16]


PYRLM = Profile(
    name="pyrlm",
    version=2,
    system=_PYRLM_SYSTEM,
    subcall_system=_PYRLM_SUBCALL,
    recursive_system=_PYRLM_RECURSIVE,
    fences=("repl", "python", "py", "python3", "py3", ""),
    bare_code=True,
    output_chars=4_000,
    error_chars=2_000,
)

PROFILES: dict[str, Profile] = {PYRLM.name: PYRLM}
"""By name; `Options.profile` is a key."""

LIMIT_RAISED = "The limit was raised: you may go on. Your next action:"
"""News of a run that a limit ended and that is resumed."""

EMPTY_REPLY = "(an empty reply)"
"""What the conversation keeps of a reply that says nothing."""

CHILD_QUERY = "Do what the text in P asks for."
"""Query of a recursive sub-run that was given only a prompt."""


def first_message(query: str, context: ContextInfo, max_steps: int) -> str:
    """What the model is told of its task: the question and the shape of the context."""
    lines = [f"Question: {query}", "", f"P holds {context.chars:,} characters"]
    if context.kind == "document_list" and context.documents != 1:
        lengths = ", ".join(f"{n:,}" for n in context.lengths)
        if context.documents > len(context.lengths):
            half = len(context.lengths) // 2
            head = ", ".join(f"{n:,}" for n in context.lengths[:half])
            tail = ", ".join(f"{n:,}" for n in context.lengths[half:])
            lengths = f"{head}, ..., {tail}"
        lines[-1] += f" in {context.documents:,} documents (lengths: {lengths})"
    lines[-1] += f". You have {max_steps} turns."
    lines += ["", "You have not seen any of it yet: look at it with code before you answer."]
    return "\n".join(lines)


def result_message(output: str, turns_left: int) -> str:
    """What the model is told after its code ran."""
    left = "1 turn is left" if turns_left == 1 else f"{turns_left} turns are left"
    return f"Output:\n{output}\n\n{left}. Your next action:"


def refusal_message(reason: str, turns_left: int) -> str:
    """What the model is told when its reply was refused."""
    left = "1 turn is left" if turns_left == 1 else f"{turns_left} turns are left"
    return f"{reason}\n\n{left}. Your next action:"


def closing_message(limit: str) -> str:
    """What the model is told when a limit leaves it one reply."""
    return (
        f"The limit {limit} is reached: no more code is run. Reply with your best answer to the "
        "question now, as plain text or as FINAL_VAR: variable_name."
    )
