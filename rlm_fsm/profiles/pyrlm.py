"""The default profile: `P` and `ctx`, any Python fence, ``FINAL:`` and ``FINAL_VAR:``."""

from rlm_fsm.profile import Profile

_SYSTEM = """\
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
- llm_query_json(text), llm_query_records(text): the reply as data: a JSON value, or a list of \
dicts; name the keys you want. llm_batch_json and llm_batch_records take many prompts.
- ask(question, text), ask_chunks(question, chunks), ask_chunks_first(question, chunks),
  pick_first_answer(answers): the same for one question over pieces of the text.
- map_chunks(question, chunks), reduce_tree(texts, question), classify_all(items, labels), \
vote(prompt, n=5): many subcalls by one call. They print their number and cost first, and raise \
SubcallLimitError before the first one when the budget doesn't allow all.
- budget(): what is left, a dict. SHOW_VARS(): your variables.
Variables, functions and imports survive from turn to turn, also after an error. The value of a \
last bare expression is printed.

How to work:
- Look before you read: print lengths and samples, search with ctx.find or re, then narrow down.
- Of long output you see the beginning and the end. Keep results in variables.
- A sub-model reads about 500,000 characters well. Prefer a few large pieces to many small ones, \
and llm_batch to a loop. Give each prompt all it needs: the sub-model sees nothing else.
- Do counting, sorting and exact matching in code; use sub-models for meaning.

To finish, reply with one line outside any code block:
FINAL: your answer
or, when the answer is in a variable that an earlier turn has set:
FINAL_VAR: variable_name
"""

_SUBCALL = """\
You are a sub-LLM of a larger task. Answer from the given text alone. Be brief and exact: no \
preamble, no explanation unless it is asked for. If the text doesn't hold the answer, reply with \
NO_ANSWER."""

_RECURSIVE = """\
You are a sub-LLM that works on one piece of a larger task, in a Python session of its own. The \
piece is the variable P (also ctx.find, ctx.slice, ctx.chunk, peek, tail, llm_query, llm_batch, \
ask). Each turn, reply with ONE fenced Python block; you see what it prints. You have few turns. \
To finish, reply with one line outside any code block:
FINAL: your answer
or FINAL_VAR: variable_name
If the piece doesn't hold the answer, finish with FINAL: NO_ANSWER
"""

PYRLM = Profile(
    name="pyrlm",
    version=4,
    system=_SYSTEM,
    subcall_system=_SUBCALL,
    recursive_system=_RECURSIVE,
    first_text=(
        "Question: {query}\n\nP holds {chars} characters. You have {turns} turns.\n\n"
        "You have not seen any of it yet: look at it with code before you answer."
    ),
    first_documents=(
        "Question: {query}\n\nP holds {chars} characters in {documents} documents "
        "(lengths: {lengths}). You have {turns} turns.\n\n"
        "You have not seen any of it yet: look at it with code before you answer."
    ),
    child_query="Do what the text in P asks for.",
    shown="Output:\n{output}",
    block_shown="(block {number})\n{output}",
    next_action="{left}. Your next action:",
    turn_left="1 turn is left",
    turns_left="{count} turns are left",
    closing=(
        "The limit {limit} is reached: no more code is run. Reply with your best answer to the "
        "question now, as plain text or as FINAL_VAR: variable_name."
    ),
    limit_raised="The limit was raised: you may go on. Your next action:",
    compact=(
        "The conversation is getting too long to be sent whole. Before you go on, sum it up: from "
        "now on your summary stands in its place. Reply with the summary alone, as plain text: no "
        "code is run, and nothing of it is taken for the answer. Tell what you have found (names, "
        "numbers and quotes to the letter), what you tried in vain, which variables hold what, and "
        "what you were about to do. At most {words} words."
    ),
    summary="Summary of the work so far:\n{summary}",
    compacted=(
        "({count} messages were left out here, and your summary stands in their place. Your "
        "variables are as they were; the list history, in your session, holds every message.)"
    ),
    empty_reply="(an empty reply)",
    output_head=3_000,
    output_tail=1_000,
    output_cut="{head}\n... ({cut} of {total} characters left out) ...\n{tail}",
    blank_end_counts=False,
    no_output="(no output; print what you want to see)",
    error_chars=2_000,
    error_cut="(the last {shown} of {total} characters) ...\n{tail}",
    session_lost="(the session was restarted: your variables are gone)",
    session_rebuilt="(the session was restarted: your variables are as before this code)",
    pending=(
        "Your final answer ({form}) was not accepted, since the code raised afterwards. It was:\n"
        "{answer}\nMend the error and give the answer again."
    ),
    variables="changed",
    variables_shown="Variables:\n{list}",
    variable_line="- {mark}{name}: {summary}",
    variable_new="new ",
    variable_changed="",
    variables_more="- and {count} more",
    repeated=(
        "You have run this same code {count} times in a row, and it won't tell you more. Do "
        "something else, or finish with what you know."
    ),
    not_run=(
        "Only the {which} block of code of a reply is run: {count} more of yours were left out."
    ),
    min_steps=(
        "Not yet: this was turn {turn} of at least {least}. Look further before you answer."
    ),
    require_repl=("Not yet: run code on the text before you answer, in a ```python block."),
    require_subcall=(
        "Not yet: ask a sub-model (llm_query, llm_batch, ask_chunks) before you answer."
    ),
    missing_variable=(
        "There is no variable '{name}'. {known} Set it with code first, then finish."
    ),
    known_variables="Your variables: {names}.",
    no_variables="You have set no variables yet.",
    unreadable_variable="FINAL_VAR: {name} can't be used: {error}",
    other_form="{form} is not how to finish here. {forms}",
    short_variable=(
        "{name} holds {chars} characters; an answer needs at least {least}. Go on, and set it anew."
    ),
    rejected_variable=(
        "What {name} holds was not accepted as the answer: it matches {pattern}. Find the answer "
        "itself and set {name} anew."
    ),
    no_subcall_yet=(
        "This was turn {turn}, and you have asked no sub-model yet. Ask one now (llm_query, "
        "llm_batch, ask_chunks): the answer isn't accepted before."
    ),
    no_value_yet=(
        "This was turn {turn}, and {name} holds no answer yet. Set it as soon as you have one."
    ),
    fallback_shown=(
        "Code that was prepared for such a case was run. It gave no answer, and showed:\n{output}"
    ),
    correction="{fault} {forms}",
    forms=(
        "Reply with one block of code:\n```{fence}\nprint(...)\n```\n"
        "or, to finish, with one line outside any block: FINAL: your answer, or "
        "FINAL_VAR: variable_name"
    ),
    empty="Your reply was empty.",
    no_code="Your reply holds neither a block of Python code nor a final answer.",
    only_output=(
        "None of your blocks is Python code. Blocks of other languages, such as output, are never "
        "run: what they show was made up."
    ),
    cut=(
        "Your reply was cut off by the token limit before it came to code or an answer. Think "
        "less in words: come to the code at once."
    ),
    cut_code=(
        "Your code was cut off by the token limit, so nothing of it was run. Be shorter: do less "
        "in one block, or keep the answer in a variable and name it."
    ),
    refused="Your reply was stopped by the provider's content filter.",
    empty_answer="Your final answer was empty.",
    bad_name=(
        "FINAL_VAR takes the name of one variable, nothing else. Write an answer that is text "
        "with FINAL; assign a value to a variable first."
    ),
    bad_answer="The parenthesis of your FINAL( is never closed.",
    answer_shape=(
        "The answer must be a value that fits this JSON schema:\n{schema}\n"
        "Finish with FINAL: and the value as JSON, with FINAL_VAR: and the name of a variable that "
        "holds it, or by calling SUBMIT(value) in your code."
    ),
    answer_misfit=(
        "Your answer doesn't fit the JSON schema that it must fit:\n{problems}\n"
        "Mend it and give the answer again."
    ),
    problem="- {path}: {message}; found {found}",
    more_problems="- and {count} more",
    subcall_shape=(
        "{prompt}\n\nReply with JSON only, without any other words, that fits this JSON schema:\n"
        "{schema}"
    ),
    subcall_misfit=(
        "{prompt}\n\nAn earlier reply to this was:\n{reply}\n\nIt does not fit:\n{problems}\n"
        "Reply again, with JSON that fits."
    ),
    tools=(
        "Besides these, the REPL has functions of the user's own program. They take and return "
        "plain data: None, True and False, numbers, str, lists, and dicts with str as keys. A call "
        "that fails raises ToolError; one that a person refuses raises ToolDenied, a kind of "
        "ToolError: don't make it again. Several calls run side by side when you await them with "
        "asyncio.gather.\n{tools}"
    ),
    tool="- {name}{signature}",
    tool_approval="A person is asked before each call is made.",
    fences=("python", "repl", "py", "python3", "py3", ""),
    bare_code=True,
    blocks="all",
    finals=("SUBMIT", "FINAL", "FINAL_VAR", "done", "answer", "text"),
    subcall_error="",
    batch_error="",
)
"""The default."""
