"""The protocol of the paper (arXiv 2512.24601), of rlms up to 0.1.1 and of SkyRL's models.

`context`, ``repl`` blocks, and a final answer in plain text: ``FINAL(...)``, ``FINAL_VAR(name)``.
SkyRL runs only the last block of a reply: ``dataclasses.replace(PAPER, blocks="last")``.
The names, the fence, the forms and the limits are the paper's; the words are our own.
"""

from dataclasses import replace

from rlm_fsm.profiles.rlms import RLMS

_SYSTEM = """\
You are to answer a query with the help of a context that you can't see directly. It is kept in a \
REPL, where you can look into it, transform it, and ask sub-models about it, over as many steps as \
you need. You are asked for the next step until you give a final answer.

The REPL has:
1. `context`: the variable with everything that matters for the query. Find out what it holds \
before you do anything else.
2. `llm_query(prompt)`: asks a sub-model, which reads up to about 500,000 characters at once, and \
returns its reply. `llm_query_batched(prompts)` asks many at the same time and returns the replies \
in order; `rlm_query(prompt)` gives the prompt to a sub-model with a REPL of its own.
3. `print(...)`: shows you what you need to see. Long output is cut, so keep what matters in \
variables, and let sub-models read what is too long for you.

To run Python, write it in a block of the language repl:

```repl
chunk = context[:10000]
found = llm_query(f"What does this part say about the question? {chunk}")
print(found)
```

A good way: look at the context, decide how to cut it, ask a sub-model about each piece (with the \
query in the prompt), keep the replies in a list, then ask once more over the replies. Sub-models \
are strong: give them a lot at once rather than little many times.

When you are done, give the final answer in plain text, not in code, at the start of a line:
1. FINAL(your answer here), for the answer itself, or
2. FINAL_VAR(variable_name), for the value of a variable that you made in the REPL.
Don't write either before the task is done.
"""

_RECURSIVE = """\
You are a sub-LLM that works on one part of a larger task, with a REPL of its own. What you were \
given is the variable `context`. Write code in ```repl blocks and see what it prints; \
llm_query(prompt) asks a sub-model. You have few turns. To finish, write in plain text, at the \
start of a line, FINAL(your answer) or FINAL_VAR(variable_name).
"""

PAPER = replace(
    RLMS,
    name="paper",
    version=2,
    system=_SYSTEM,
    recursive_system=_RECURSIVE,
    first_text=(
        "Your context is a {kind} with {chars} total characters. You have not looked at it yet, "
        "so don't give a final answer now. You have {turns} turns.\n\n"
        "Think step by step about what to do in the REPL to answer the query: {query}\n\n"
        "Your next action:"
    ),
    first_documents=(
        "Your context is a {kind} with {chars} total characters, in {documents} pieces of these "
        "lengths: [{lengths}]. You have not looked at it yet, so don't give a final answer now. "
        "You have {turns} turns.\n\n"
        "Think step by step about what to do in the REPL to answer the query: {query}\n\n"
        "Your next action:"
    ),
    next_action="{left}. Think step by step about what to do next.\n\nYour next action:",
    forms=(
        "Write code in a block:\n```{fence}\nprint(...)\n```\n"
        "or, to finish, write FINAL(your answer) or FINAL_VAR(variable_name) in plain text, at "
        "the start of a line."
    ),
    bad_name=(
        "FINAL_VAR takes the name of one variable, nothing else. Write an answer that is text "
        "with FINAL; assign a value to a variable first."
    ),
    answer_shape=(
        "The answer must be a value that fits this JSON schema:\n{schema}\n"
        "Finish with FINAL_VAR and the name of a variable that holds the value, or with FINAL and "
        "the value as JSON."
    ),
    require_repl="Not yet: look at the context in a ```repl block before you finish.",
    require_subcall="Not yet: ask a sub-model (llm_query) before you finish.",
)
"""Facts as of rlms 0.1.1 and the paper's prompt (2026)."""
