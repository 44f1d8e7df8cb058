"""``rlm-fsm run QUERY [PATH...]``: one question over files, folders, globs or stdin."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effects.commands.options import (
    JSON,
    LOG,
    NO_COLOR,
    NO_LIMIT,
    QUIET,
    REPL,
    Option,
    amount,
    limit,
    whole,
)
from effects.commands.terminal import Terminal
from rlm_fsm.errors import UsageError
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy

_POLICY, _DEFAULTS = Policy(), Options()

MODEL_OPTIONS = (
    Option(
        name="model",
        metavar="NAME",
        help="the model, such as openai:gpt-5, ollama:llama3, or a name that the endpoint knows",
    ),
    Option(
        name="base-url",
        metavar="URL",
        help="an OpenAI-compatible endpoint, up to and including /v1 (also LLM_BASE_URL); "
        "its key is taken from LLM_API_KEY or OPENAI_API_KEY",
    ),
    Option(name="subcall-model", metavar="NAME", help="a cheaper model for subcalls"),
    Option(
        name="max-tokens",
        metavar="N",
        convert=whole(1),
        help=f"tokens that a turn may generate (default {_DEFAULTS.max_tokens})",
    ),
    Option(
        name="subcall-max-tokens",
        metavar="N",
        convert=whole(1),
        help=f"tokens that a subcall may generate (default {_DEFAULTS.subcall_max_tokens})",
    ),
    Option(
        name="system-prompt",
        metavar="FILE",
        help="a file with the system prompt to use in place of ours",
    ),
)
LIMIT_OPTIONS = (
    Option(
        name="max-steps",
        metavar="N",
        convert=whole(0),
        help=f"turns of the root model (default {_POLICY.max_steps})",
    ),
    Option(
        name="max-subcalls",
        metavar="N",
        convert=whole(0),
        help=f"subcalls in all (default {_POLICY.max_subcalls})",
    ),
    Option(
        name="max-total-tokens",
        metavar="N",
        convert=limit(whole(0)),
        help=f"tokens of all calls (default {_POLICY.max_total_tokens}; none: no limit)",
    ),
    Option(
        name="max-cost",
        metavar="USD",
        convert=limit(amount),
        help="cost of all calls, where the provider tells it (default none)",
    ),
    Option(
        name="max-seconds",
        metavar="S",
        convert=limit(amount),
        help="seconds for the whole run (default none)",
    ),
)
WORK_OPTIONS = (
    REPL,
    Option(
        name="concurrency",
        metavar="N",
        convert=whole(1),
        help=f"subcalls at the same time (default {_DEFAULTS.max_concurrent_subcalls})",
    ),
    Option(name="parallel", help="let ask_chunks and llm_query_batch ask in parallel"),
    Option(name="recursive", help="let subcalls be runs of their own, with code"),
)
OUTPUT_OPTIONS = (LOG, JSON, QUIET, NO_COLOR)
OPTIONS = (*MODEL_OPTIONS, *LIMIT_OPTIONS, *WORK_OPTIONS, *OUTPUT_OPTIONS)
GROUPS = {
    "model": MODEL_OPTIONS,
    "limits": LIMIT_OPTIONS,
    "work": WORK_OPTIONS,
    "output": OUTPUT_OPTIONS,
}

NO_MODEL = """no model is configured. Any of these will do:
  - rlm-fsm run --model openai:NAME, with LLM_API_KEY or OPENAI_API_KEY set
  - rlm-fsm run --model NAME --base-url URL, for any OpenAI-compatible endpoint
  - rlm-fsm run --model ollama:NAME, for a model on this machine
  - RLM_FSM_MODEL and RLM_FSM_BASE_URL in the environment
`rlm-fsm demo` needs no model."""

_ARGUMENTS = {
    "max_tokens": "max_tokens",
    "subcall_max_tokens": "subcall_max_tokens",
    "repl": "repl_backend",
    "concurrency": "max_concurrent_subcalls",
    "parallel": "parallel_subcalls",
    "recursive": "recursive_subcalls",
}
"""Our options -> the arguments of `RLM`."""
_LIMITS = {
    "max_steps": "max_steps",
    "max_subcalls": "max_subcalls",
    "max_total_tokens": "max_total_tokens",
    "max_cost": "max_cost_usd",
    "max_seconds": "max_seconds",
}
"""Our options -> the fields of `Policy`."""


def add_arguments(parser: ArgumentParser) -> None:
    """What stands on the command line besides options."""
    # Optional for argparse, which else names PATH as missing too.
    parser.add_argument("query", metavar="QUERY", nargs="?", help="the question")
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="files, folders or globs that make up the context; - or nothing: standard input",
    )


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Answer a question; the exit code. Raises `UsageError` before anything is started."""
    from effects.commands.conclude import perform, report
    from effects.rlm import RLM, log_target
    from effects.settings import read_settings

    terminal = Terminal(arguments)
    if not (arguments.query or "").strip():
        raise UsageError('there is no question: rlm-fsm run "QUESTION" PATH...')
    log = log_target(arguments.log)
    view = terminal.view()
    rlm = RLM(
        _adapter(arguments.model, arguments.base_url, environment),
        log=log,
        event_listener=view,
        logger=silent_logger(),
        **_rlm_arguments(arguments, environment),
    )
    context = read_context(arguments.paths)
    for name, reason in context.skipped if not terminal.is_quiet else ():
        terminal.tell(f"{name}: passed over, {reason}")
    end = perform(rlm, arguments.query, context, view, str(log))
    return report(end, terminal, default_log=read_settings(environment).log)


def read_context(paths: Sequence[str]) -> Any:
    """One context of all paths; standard input comes first. A `Context`."""
    from effects.context import Context

    files = [Path(path) for path in paths if path != "-"]
    if len(files) == len(paths) and files:
        return Context.of(files)
    if not paths and sys.stdin.isatty():
        raise UsageError("there is no context: give files, folders or globs, or pipe a text in")
    text = _standard_input()
    if not files:
        return Context.from_text(text)
    rest = Context.of(files)
    documents = [rest.get_document(i) or "" for i in range(rest.num_documents())]
    return Context.from_documents([text, *documents], names=["-", *(rest.names or ())])


def silent_logger() -> logging.Logger:
    """A logger that says nothing: what it would say is what the command line tells itself."""
    logger = logging.getLogger("rlm_fsm.cli")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _standard_input() -> str:
    try:
        text = str(sys.stdin.buffer.read(), "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 (byte {error.start}: {error.reason})"
        ) from None
    if not text.strip():
        raise UsageError("standard input is empty: there is no context")
    return text


def _adapter(name: str | None, base_url: str | None, environment: Mapping[str, str]) -> Any:
    """An adapter for a model's name. `UsageError` when it can't be had."""
    from effects.adapters.openai_compat import OpenAICompatAdapter
    from effects.models import resolve_adapter
    from effects.settings import read_settings

    settings = read_settings(environment)
    name = name or settings.model
    if name is None:
        raise UsageError(NO_MODEL)
    if base_url is not None:
        for provider in ("openai:", "ollama:"):
            name = name.removeprefix(provider)
        return OpenAICompatAdapter(name, base_url=base_url)
    if not (settings.has_endpoint or name.startswith("ollama:")):
        raise UsageError(
            f"there is no key and no endpoint for the model {name!r}. Set LLM_API_KEY or "
            "OPENAI_API_KEY, or give --base-url."
        )
    return resolve_adapter(None, name, settings)


def _rlm_arguments(arguments: Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `RLM` that were given."""

    def given(names: Mapping[str, str]) -> dict[str, Any]:
        values = {ours: getattr(arguments, name) for name, ours in names.items()}
        return {
            name: None if value is NO_LIMIT else value
            for name, value in values.items()
            if value is not None
        }

    found = given(_ARGUMENTS)
    found["policy"] = Policy(**given(_LIMITS))
    if arguments.system_prompt is not None:
        found["system_prompt"] = _text_of(arguments.system_prompt)
    if arguments.subcall_model is not None:
        found["subcall_adapter"] = _adapter(
            arguments.subcall_model, arguments.base_url, environment
        )
    return found


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"--system-prompt {path}: {reason}") from None
