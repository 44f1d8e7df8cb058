"""What runs did before an option or a word became data: payloads of old events made whole.

A dict per raised version, from a new field to what runs did without it. It is never edited once
a release has written the version above it: the words below decide how old logs fold, to the letter.
"""

from collections.abc import Callable
from typing import Any

Payload = dict[str, Any]
"""An event's fields as JSON gives them, long texts as markers."""

PROFILE_BEFORE_2: Payload = {
    "name": "pyrlm",
    "version": 1,
    "first_text": (
        "Question: {query}\n\nP holds {chars} characters. You have {turns} turns.\n\n"
        "You have not seen any of it yet: look at it with code before you answer."
    ),
    "first_documents": (
        "Question: {query}\n\nP holds {chars} characters in {documents} documents "
        "(lengths: {lengths}). You have {turns} turns.\n\n"
        "You have not seen any of it yet: look at it with code before you answer."
    ),
    "child_query": "Do what the text in P asks for.",
    "shown": "Output:\n{output}",
    "block_shown": "{output}",
    "next_action": "{left}. Your next action:",
    "turn_left": "1 turn is left",
    "turns_left": "{count} turns are left",
    "closing": (
        "The limit {limit} is reached: no more code is run. Reply with your best answer to the "
        "question now, as plain text or as FINAL_VAR: variable_name."
    ),
    "limit_raised": "The limit was raised: you may go on. Your next action:",
    "compact": (
        "The conversation is getting too long to be sent whole. Before you go on, sum it up: from "
        "now on your summary stands in its place. Reply with the summary alone, as plain text: no "
        "code is run, and nothing of it is taken for the answer. Tell what you have found (names, "
        "numbers and quotes to the letter), what you tried in vain, which variables hold what, and "
        "what you were about to do. At most {words} words."
    ),
    "summary": "Summary of the work so far:\n{summary}",
    "compacted": (
        "({count} messages were left out here, and your summary stands in their place. Your "
        "variables are as they were; the list history, in your session, holds every message.)"
    ),
    "empty_reply": "(an empty reply)",
    "output_head": 4_000,
    "output_tail": 0,
    "output_cut": "{head}\n... (the first {shown} of {total} characters)",
    "blank_end_counts": True,
    "no_output": "(no output; print what you want to see)",
    "error_chars": 2_000,
    "error_cut": "(the last {shown} of {total} characters) ...\n{tail}",
    "session_lost": "(the session was restarted: your variables are gone)",
    "session_rebuilt": "(the session was restarted: your variables are as before this code)",
    "pending": (
        "Your final answer ({form}) was not accepted, since the code raised afterwards. It was:\n"
        "{answer}\nMend the error and give the answer again."
    ),
    "variables": "none",
    "variables_shown": "",
    "variable_line": "",
    "variable_new": "",
    "variable_changed": "",
    "variables_more": "",
    "repeated": (
        "You have run this same code {count} times in a row, and it won't tell you more. Do "
        "something else, or finish with what you know."
    ),
    "not_run": "",
    "min_steps": (
        "Not yet: this was turn {turn} of at least {least}. Look further before you answer."
    ),
    "require_repl": ("Not yet: run code on the text before you answer, in a ```python block."),
    "require_subcall": (
        "Not yet: ask a sub-model (llm_query, llm_batch, ask_chunks) before you answer."
    ),
    "missing_variable": (
        "There is no variable '{name}'. {known} Set it with code first, then finish."
    ),
    "known_variables": "Your variables: {names}.",
    "no_variables": "You have set no variables yet.",
    "unreadable_variable": "FINAL_VAR: {name} can't be used: {error}",
    "other_form": "{form} is not how to finish here. {forms}",
    "short_variable": (
        "{name} holds {chars} characters; an answer needs at least {least}. Go on, and set it anew."
    ),
    "rejected_variable": (
        "What {name} holds was not accepted as the answer: it matches {pattern}. Find the answer "
        "itself and set {name} anew."
    ),
    "no_subcall_yet": (
        "{turn} turns have gone without a question to a sub-model. Ask one now (llm_query, "
        "llm_batch, ask_chunks): the answer isn't accepted before."
    ),
    "no_value_yet": (
        "{turn} turns have gone, and {name} holds no answer yet. Set it as soon as you have one."
    ),
    "fallback_shown": (
        "Code that was prepared for such a case was run. It gave no answer, and showed:\n{output}"
    ),
    "correction": "{fault} {forms}",
    "forms": (
        "Reply with one block of code:\n```python\nprint(...)\n```\n"
        "or, to finish, with one line outside any block: FINAL: your answer, or "
        "FINAL_VAR: variable_name"
    ),
    "empty": "Your reply was empty.",
    "no_code": "Your reply holds neither a block of Python code nor a final answer.",
    "only_output": "",
    "cut": (
        "Your reply was cut off by the token limit, so nothing of it was run. Be shorter: do "
        "less in one block, or keep the answer in a variable and name it."
    ),
    "cut_code": "",
    "refused": "Your reply was stopped by the provider's content filter.",
    "empty_answer": "Your final answer was empty.",
    "bad_name": (
        "FINAL_VAR takes the name of one variable, nothing else. Write an answer that is "
        "text with FINAL; assign a value to a variable first."
    ),
    "bad_answer": "The parenthesis of your FINAL( is never closed.",
    "fences": ["repl", "python", "py", "python3", "py3", ""],
    "bare_code": True,
    "blocks": "all",
    "finals": ["SUBMIT", "FINAL", "FINAL_VAR", "done", "answer", "text"],
    "subcall_error": "",
    "batch_error": "",
    "answer_shape": (
        "The answer must be a value that fits this JSON schema:\n{schema}\n"
        "Finish with FINAL: and the value as JSON, with FINAL_VAR: and the name of a variable that "
        "holds it, or by calling SUBMIT(value) in your code."
    ),
    "answer_misfit": (
        "Your answer doesn't fit the JSON schema that it must fit:\n{problems}\n"
        "Mend it and give the answer again."
    ),
    "problem": "- {path}: {message}; found {found}",
    "more_problems": "- and {count} more",
    "subcall_shape": (
        "{prompt}\n\nReply with JSON only, without any other words, that fits this JSON schema:\n"
        "{schema}"
    ),
    "subcall_misfit": (
        "{prompt}\n\nAn earlier reply to this was:\n{reply}\n\nIt does not fit:\n{problems}\n"
        "Reply again, with JSON that fits."
    ),
    "tools": (
        "Besides these, the REPL has functions of the user's own program. They take and return "
        "plain data: None, True and False, numbers, str, lists, and dicts with str as keys. A call "
        "that fails raises ToolError; one that a person refuses raises ToolDenied, a kind of "
        "ToolError: don't make it again. Several calls run side by side when you await them with "
        "asyncio.gather.\n{tools}"
    ),
    "tool": "- {name}{signature}",
    "tool_approval": "A person is asked before each call is made.",
}
"""The words and rules of version 1, which knew no others. The system prompts aren't here: version
1 recorded them with each run. What no log of version 1 can hold has today's words, for runs that
are resumed."""

OPTIONS_BEFORE_2: Payload = {
    "loop_limit": None,
    "fallback_code": None,
    "subcall_guard_steps": None,
    "fallback_guard_steps": None,
    "auto_finalize_reject_patterns": [],
    "auto_finalize_reject_limit": 3,
    "auto_finalize_reject_feedback": None,
    "tell_budget": False,
    "prices": [],
    "answer_schema": None,
    "output_retries": 3,
    "tools": [],
    "max_concurrent_tools": 10,
    "compaction": 0.0,
    "compaction_limit": 10,
    "compaction_max_tokens": 800,
    "rules": 1,
}
"""Options that came with version 2 of `RunStarted` and `RunResumed`."""


def _options_1(payload: Payload) -> Payload:
    options = payload.get("options")
    if options is None:
        return payload
    prompts = {
        "system": options["system_prompt"],
        "subcall_system": options["subcall_system_prompt"],
        "recursive_system": options["recursive_subcall_system_prompt"],
    }
    profile = {**PROFILE_BEFORE_2, **prompts}
    return {**payload, "options": {**OPTIONS_BEFORE_2, **options, "profile": profile}}


UPCASTERS: dict[tuple[str, int], Callable[[Payload], Payload]] = {
    ("RunStarted", 1): _options_1,
    ("RunResumed", 1): _options_1,
}
"""(kind, version) -> function from that version's payload to the next one's. Never removed."""
