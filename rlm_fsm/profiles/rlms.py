"""The protocol of alexzhang13/rlm since 0.1.2: `context`, ``repl`` blocks, the ``answer`` dict.

The names, the fence, the forms and the limits are that runtime's; the words are our own.
"""

from dataclasses import replace

from rlm_fsm.profiles.pyrlm import PYRLM

_SYSTEM = """\
You answer a query about a context that is too long for you to read at once. The context is the \
variable `context` of a Python REPL. You look into it by writing code, and you can hand parts of \
it to sub-models. You go on, turn by turn, until you submit an answer.

Code goes into blocks of the language repl; all blocks of a reply are run in order:

```repl
print(type(context), len(context))
print(context[:500])
```

The REPL has:
- context: the context, a str, or a list of str when it consists of several documents. Look at it \
before anything else.
- llm_query(prompt, model=None) -> str: one call of a sub-model, which sees the prompt only and \
reads about 100,000 characters well. Use it to extract, summarise or judge.
- llm_query_batched(prompts, model=None) -> list[str]: many such calls at the same time, in order. \
Much faster than a loop; send about 20 prompts at once.
- rlm_query(prompt, model=None) -> str and rlm_query_batched(prompts, model=None): the prompt is \
worked on by a sub-model with a REPL of its own. For parts that need several steps.
- SHOW_VARS() -> str: the variables that you have made.
- history: the messages of this conversation so far, as a list of dicts.
- answer: a dict, at first {"content": "", "ready": False}.
A sub-call that fails returns a text that starts with "Error: ". Variables survive from block to \
block. You see only what you print, and of long output only its beginning: keep results in \
variables, and let sub-models read what is too long for you.

How to work: first find out what the context looks like and how long it is. Then plan how to cut \
it, ask sub-models about the pieces, keep their replies in variables, and combine them in code or \
with one more call. Check what you found before you submit it. When the turns run out, submit your \
best inference.

To submit, set the answer in a repl block:

```repl
answer["content"] = result
answer["ready"] = True
```

`answer["content"]` may be filled and improved over several turns; setting `answer["ready"]` ends \
the task. Don't set it before you have seen the results that the answer rests on.
"""

_RECURSIVE = """\
You are a sub-LLM that works on one part of a larger task, with a Python REPL of its own. What you \
were given is the variable `context`. Write code in ```repl blocks and see what it prints; \
llm_query(prompt) and llm_query_batched(prompts) ask sub-models. You have few turns. To submit:

```repl
answer["content"] = result
answer["ready"] = True
```
"""

_NOT_SEEN = (
    "You have not looked at the context yet. Look at it first, and don't submit an answer before."
)

RLMS = replace(
    PYRLM,
    name="rlms",
    version=2,
    system=_SYSTEM,
    recursive_system=_RECURSIVE,
    first_text=(
        "Answer the following: {query}\n\nYour context is a {kind} of {chars} total characters. "
        "Each sub-model call handles roughly 100,000 characters at once.\n\n"
        f"{_NOT_SEEN}\n\nTurn 1/{{turns}}:"
    ),
    first_documents=(
        "Answer the following: {query}\n\nYour context is a {kind} of {documents} documents with "
        "{chars} total characters (lengths: {lengths}). Each sub-model call handles roughly "
        f"100,000 characters at once.\n\n{_NOT_SEEN}\n\nTurn 1/{{turns}}:"
    ),
    child_query="Do what the text in `context` asks for.",
    shown="REPL output:\n{output}",
    block_shown="(block {number})\n{output}",
    next_action="Turn {turn}/{turns}:",
    closing=(
        "The limit {limit} is reached and no more code is run. Please give the final answer to "
        "the query now, as plain text, from what you have found out."
    ),
    limit_raised="The limit was raised: you may go on.",
    output_head=20_000,
    output_tail=0,
    output_cut="{head}... + [{cut} of {total} chars...]",
    no_output="No output",
    variables="names",
    variables_shown="REPL variables: [{list}]",
    variable_line="'{name}'",
    variables_more="... {count} more",
    require_repl="Not yet: look at the context in a ```repl block before you submit.",
    require_subcall=("Not yet: ask a sub-model (llm_query, llm_query_batched) before you submit."),
    forms=(
        "Write code in a block:\n```{fence}\nprint(...)\n```\n"
        'or, to finish, set answer["content"] = ... and answer["ready"] = True in such a block.'
    ),
    bad_name=(
        "FINAL_VAR takes the name of one variable, nothing else. Better set "
        'answer["content"] to the value and answer["ready"] to True.'
    ),
    answer_shape=(
        "The answer must be a value that fits this JSON schema:\n{schema}\n"
        'Put the value itself into answer["content"], not a text that describes it.'
    ),
    fences=("repl", "python", "py", "python3", "py3", ""),
    subcall_error="Error: {message}",
    batch_error="Error: {message}",
)
"""Facts as of rlms 0.1.3 (May 2026)."""
