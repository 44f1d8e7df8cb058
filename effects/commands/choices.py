"""Which model, which limits, how the work is done: what `run`, `resume` and `fork` are told alike.

`run` begins with the defaults. A run that exists has its own choices in its log: there, an option
that isn't given means that nothing changes.
"""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from effects.commands.options import (
    ISOLATION,
    NO_LIMIT,
    REPL,
    Option,
    amount,
    choice,
    limit,
    prices,
    seconds,
    share,
    whole,
)
from effects.repls.base import ReplLimits
from rlm_fsm.errors import UsageError
from rlm_fsm.options import Options
from rlm_fsm.policy import Policy
from rlm_fsm.price import Price
from rlm_fsm.profiles import PROFILES

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
        name="profile",
        metavar="NAME",
        convert=choice(*PROFILES, "auto"),
        help=f"the protocol that the model knows: {', '.join(PROFILES)}, or auto, by the model's "
        f"name (default {_DEFAULTS.profile.name})",
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
        name="max-subcall-tokens",
        metavar="N",
        convert=limit(whole(0)),
        help="tokens of all calls below the root (default none)",
    ),
    Option(
        name="max-cost",
        metavar="USD",
        convert=limit(amount),
        help="cost of all calls (default none); every model needs a price that is known",
    ),
    Option(
        name="price",
        metavar="PRICES",
        convert=prices,
        help="what models charge, in USD for a million tokens sent and generated, as in "
        '"MODEL=0.15,0.60 OTHER=0,0"; else the price list of rlm-fsm[prices] says it',
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
    ISOLATION,
    Option(
        name="concurrency",
        metavar="N",
        convert=whole(1),
        help=f"subcalls at the same time (default {_DEFAULTS.max_concurrent_subcalls})",
    ),
    Option(
        name="cache",
        metavar="WHERE",
        help="don't ask again what was answered before: a folder for replies to subcalls, log for "
        "those in the log itself, or none",
    ),
    Option(
        name="max-history-tokens",
        metavar="N",
        convert=whole(0),
        help="tokens of a conversation that are sent, by estimate; older ones are left out "
        "(default 0: all are sent)",
    ),
    Option(
        name="compaction",
        metavar="SHARE",
        convert=share,
        help="let the model sum up a conversation that fills this share, such as 0.8, of "
        "--max-history-tokens, or else of three quarters of the model's window (default 0: never)",
    ),
    Option(name="parallel", help="let ask_chunks and llm_query_batch ask in parallel"),
    Option(name="recursive", help="let subcalls be runs of their own, with code"),
    Option(
        name="max-recursion-depth",
        metavar="N",
        convert=whole(1),
        help=f"how deep they may be, with --recursive (default {_DEFAULTS.max_recursion_depth})",
    ),
    Option(
        name="cell-timeout",
        metavar="S",
        convert=seconds,
        help=f"seconds that a cell may compute (default {ReplLimits().cell_timeout_s:g})",
    ),
)
GUARD_OPTIONS = (
    Option(
        name="min-steps",
        metavar="N",
        convert=whole(0),
        help="turns before an answer is accepted (default 0)",
    ),
    Option(name="require-repl-before-final", help="accept no answer before code has run"),
    Option(
        name="require-subcall-before-final", help="accept no answer before a sub-model was asked"
    ),
    Option(
        name="auto-finalize-var",
        metavar="NAME",
        help="a variable of the code: the run ends when it is set, and it is the answer",
    ),
    Option(
        name="invalid-response-limit",
        metavar="N",
        convert=limit(whole(1)),
        help="invalid replies in a row before the run gives up (default none)",
    ),
    Option(
        name="repl-error-limit",
        metavar="N",
        convert=limit(whole(1)),
        help="cells that raise before the run gives up (default none)",
    ),
    Option(
        name="loop-limit",
        metavar="N",
        convert=limit(whole(2)),
        help=f"times the same code may come in a row (default {_DEFAULTS.loop_limit}; none: "
        "no limit)",
    ),
)
"""Named as `RLM`'s arguments are."""

NO_MODEL = """no model is configured. Any of these will do:
  - rlm-fsm run --model openai:NAME, with LLM_API_KEY or OPENAI_API_KEY set
  - rlm-fsm run --model NAME --base-url URL, for any OpenAI-compatible endpoint
  - rlm-fsm run --model ollama:NAME, for a model on this machine
  - RLM_FSM_MODEL and RLM_FSM_BASE_URL in the environment
`rlm-fsm demo` needs no model."""

_ARGUMENTS = {
    "max_tokens": "max_tokens",
    "subcall_max_tokens": "subcall_max_tokens",
    "profile": "profile",
    "repl": "repl_backend",
    "concurrency": "max_concurrent_subcalls",
    "max_history_tokens": "max_history_tokens",
    "compaction": "compaction",
    "parallel": "parallel_subcalls",
    "recursive": "recursive_subcalls",
    "max_recursion_depth": "max_recursion_depth",
    **{option.dest: option.dest for option in GUARD_OPTIONS},
}
"""Our options -> the fields of `Options`, by which `RLM` takes them too."""
LIMITS = {
    "max_steps": "max_steps",
    "max_subcalls": "max_subcalls",
    "max_total_tokens": "max_total_tokens",
    "max_subcall_tokens": "max_subcall_tokens",
    "max_cost": "max_cost_usd",
    "max_seconds": "max_seconds",
}
"""Our options -> the fields of `Policy`."""
_BUDGETS = {"max_total_tokens": "--budget-tokens", "max_cost_usd": "--budget-cost"}
"""What a batch has used up for good -> our options. Its seconds begin anew with each command."""


def as_recorded(options: Sequence[Option]) -> tuple[Option, ...]:
    """The options for a run that exists: without the defaults in their help."""
    told = (re.sub(r"\(default [^;)]*; ", "(", option.help) for option in options)
    return tuple(
        replace(option, help=re.sub(r" \(default[^)]*\)", "", help))
        for option, help in zip(options, told, strict=True)
    )


def options_given(arguments: Namespace) -> dict[str, Any]:
    """The options of a run that were given, by the names of `Options`; not its limits."""
    found = _given(arguments, _ARGUMENTS)
    if getattr(arguments, "system_prompt", None) is not None:
        found["system_prompt"] = _text_of(arguments.system_prompt)
    return found


def policy_given(arguments: Namespace, before: Policy) -> Policy:
    """A policy with the limits that were given."""
    return replace(before, **_given(arguments, LIMITS))


def prices_given(arguments: Namespace) -> dict[str, Price]:
    """What models charge, as far as it was given."""
    return dict(arguments.price or {})


def cache_given(arguments: Namespace) -> dict[str, Any]:
    """The cache that was given, by the name of `RLM`'s argument."""
    given = getattr(arguments, "cache", None)
    if given in (None, "log", "none"):
        return {} if given is None else {"cache": given}
    from effects.caches.files import FileCache

    return {"cache": FileCache(given)}


def limits_given(arguments: Namespace) -> dict[str, Any]:
    """The limits of sessions that were given, by the name of `RLM`'s argument."""
    given = {
        "isolation": arguments.isolation,
        "cell_timeout_s": getattr(arguments, "cell_timeout", None),
    }
    told = {name: value for name, value in given.items() if value is not None}
    return {"repl_limits": ReplLimits(**told)} if told else {}


def make_adapter(name: str | None, base_url: str | None, environment: Mapping[str, str]) -> Any:
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


def make_adapters(arguments: Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """The models that the options name, by the names of `RLM`'s arguments."""
    url = arguments.base_url
    found = {"adapter": make_adapter(arguments.model, url, environment)}
    if arguments.subcall_model is not None:
        found["subcall_adapter"] = make_adapter(arguments.subcall_model, url, environment)
    return found


def how_a_batch_goes_on(stopped: str) -> str:
    """What to do about a batch that was stopped, by the reason."""
    used_up = re.match(r"the budget is used up: (\w+)=", stopped)
    option = _BUDGETS.get(used_up[1]) if used_up else None
    larger = f" with a larger {option}" if option else ""
    return f"The same command{larger} goes on."


def _given(arguments: Namespace, names: Mapping[str, str]) -> dict[str, Any]:
    values = {ours: getattr(arguments, name) for name, ours in names.items()}
    return {
        name: None if value is NO_LIMIT else value
        for name, value in values.items()
        if value is not None
    }


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"--system-prompt {path}: {reason}") from None
