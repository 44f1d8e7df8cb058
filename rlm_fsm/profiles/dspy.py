"""The vocabulary of dspy.RLM 3.4: one block of Python a turn, ``SUBMIT(...)`` in code.

The message layout is ours, append-only; the names, the forms and the limits are dspy's; the words
are our own.
"""

from dataclasses import replace

from rlm_fsm.profiles.pyrlm import PYRLM

_SYSTEM = """\
You answer a question from inputs that are too large to read at once. They are variables of a \
Python session that keeps its state. Explore them step by step: each turn, think shortly about \
what to find out next, then write ONE block of code, and read what it prints.

```python
print(len(context))
print(context[:1000])
```

The session has:
- context: the input, a str, or a list of str for several documents.
- llm_query(prompt): asks a sub-model about text that you put into the prompt (up to about 500,000 \
characters). For meaning, not for counting or searching.
- llm_query_batched(prompts): many such prompts at the same time, replies in order; one that \
failed is a text that starts with [ERROR].
- print(): the only way to see something.
- SUBMIT(answer): hands in the answer and ends the task at once.
- the standard library: re, json, collections and so on.

How to work:
1. Explore first: print samples, check types and lengths before you write anything that depends \
on them.
2. Take small steps, and look at the output of each before the next. State is kept.
3. Verify: when a result is empty, zero or surprising, find out why before you go on.
4. Use llm_query for what only a reader can tell; do the rest in code.
5. Call SUBMIT only after you have seen, in the output of an earlier turn, that the answer is \
right. What a block prints before SUBMIT you don't see any more.
"""

_RECURSIVE = """\
You are a sub-LLM that works on one part of a larger task, in a Python session of its own. What \
you were given is the variable `context`. Each turn, write ONE ```python block and read what it \
prints; llm_query(prompt) and llm_query_batched(prompts) ask sub-models. You have few turns. To \
finish, call SUBMIT(answer) in code.
"""

DSPY = replace(
    PYRLM,
    name="dspy",
    version=2,
    system=_SYSTEM,
    recursive_system=_RECURSIVE,
    first_text=(
        "Question: {query}\n\nVariable: `context` (use it in your code)\nType: {kind}\n"
        "Total length: {chars} characters\n\nIteration: 1/{turns}"
    ),
    first_documents=(
        "Question: {query}\n\nVariable: `context` (use it in your code)\nType: {kind}\n"
        "Documents: {documents}, of lengths {lengths}\nTotal length: {chars} characters\n\n"
        "Iteration: 1/{turns}"
    ),
    child_query="Do what the text in `context` asks for.",
    next_action="Iteration: {turn}/{turns}",
    closing=(
        "The limit {limit} is reached and no more code is run. State the answer that the work so "
        "far supports best, as plain text and nothing else."
    ),
    limit_raised="The limit was raised: you may go on.",
    output_head=5_000,
    output_tail=5_000,
    output_cut="{head}\n\n... ({cut} of {total} characters omitted) ...\n\n{tail}",
    no_output="(no output: did you forget to print?)",
    variables="none",
    require_repl="Not yet: explore the input with code before you submit.",
    require_subcall="Not yet: ask a sub-model (llm_query, llm_query_batched) before you submit.",
    forms=(
        "Write one block of code:\n```{fence}\nprint(...)\n```\n"
        "or, to finish, call SUBMIT(answer) in such a block."
    ),
    bad_name="FINAL_VAR takes the name of one variable, nothing else. Better call SUBMIT(answer).",
    answer_shape=(
        "The answer must be a value that fits this JSON schema:\n{schema}\n"
        "Give the value itself to SUBMIT, or its fields by name."
    ),
    fences=("python", "py", "python3", "py3", "repl", ""),
    blocks="first",
    batch_error="[ERROR] {message}",
)
"""Facts as of dspy 3.4.1 (2026)."""
