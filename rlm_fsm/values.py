"""Frozen values shared by events, effects and state.

Nothing here decides anything. A value that holds a text says whether it holds the text itself
or a `TextRef`: state and effects carry references, events carry texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
FinalForm = Literal["SUBMIT", "FINAL", "FINAL_VAR", "done", "answer", "text"]
"""How a final answer was given: by calling one of four functions in code, by a true ``ready`` in
the dict ``answer``, or in the text of a reply."""


def text_hash(text: str) -> str:
    """SHA-256 of a text, as 64 hex digits.

    UTF-8 with ``surrogatepass``: models and files do produce lone surrogates, and a text that
    can't be hashed couldn't be logged.
    """
    return sha256(utf8(text)).hexdigest()


def utf8(text: str) -> bytes:
    """A text as bytes, see `text_hash`."""
    return text.encode("utf-8", "surrogatepass")


def utf8_bytes(text: str) -> int:
    """How many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(utf8(text))


@dataclass(frozen=True, slots=True)
class TextRef:
    """A text by content: what state and effects hold instead of the text."""

    hash: str
    """SHA-256 of the text, see `text_hash`."""
    chars: int
    """Length of the text in characters."""
    bytes: int = field(default=-1, compare=False)
    """Its length in UTF-8, for estimates. No part of its name: it is neither compared nor
    recorded. When it isn't told, a byte for each character."""

    def __post_init__(self) -> None:
        if self.bytes < 0:
            object.__setattr__(self, "bytes", self.chars)

    @classmethod
    def of(cls, text: str) -> "TextRef":
        """The reference of a text."""
        data = utf8(text)
        return cls(sha256(data).hexdigest(), len(text), len(data))


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation with a model."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The form that chat endpoints take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call, as the provider bills them."""

    prompt_tokens: int = 0
    """Tokens sent, cached ones included."""
    completion_tokens: int = 0
    """Tokens generated, reasoning included."""
    total_tokens: int = 0
    """Sum as reported; `from_dict` fills it in when it is missing."""
    cached_tokens: int = 0
    """The part of `prompt_tokens` that came from the provider's prompt cache."""
    reasoning_tokens: int = 0
    """The part of `completion_tokens` that was reasoning."""
    estimated: bool = False
    """True when the provider reported nothing and the numbers are a quarter of the characters."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
        )

    def to_dict(self) -> dict[str, int | bool]:
        """Plain data; `from_dict` is its inverse."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "estimated": self.estimated,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "Usage":
        """Read plain data; missing and null counts are 0, a missing total is the sum."""
        data = data or {}

        def count(name: str) -> int:
            value = data.get(name)
            return int(value) if isinstance(value, int | float) and value > 0 else 0

        prompt, completion = count("prompt_tokens"), count("completion_tokens")
        return cls(
            prompt,
            completion,
            count("total_tokens") or prompt + completion,
            count("cached_tokens"),
            count("reasoning_tokens"),
            bool(data.get("estimated", False)),
        )


def estimate_tokens(chars: int) -> int:
    """Tokens that `chars` characters are taken for before a provider counts them.

    A quarter of the characters, at least 1 for a non-empty text: the rule of thumb that the
    large providers publish for English.
    """
    return 0 if chars <= 0 else max(1, chars // 4)


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """What an adapter returns for one call.

    `meta` may hold ``finish_reason`` (``stop``, ``length``, ``content_filter``), ``cost_usd``,
    ``reasoning``, ``request_id``.
    """

    text: str
    usage: Usage
    model_id: str | None = None
    meta: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextInfo:
    """What the core knows of a context: its shape and its name by content, never its text."""

    kind: str
    """``string`` or ``document_list``; shown to the model."""
    chars: int
    """Length of the whole text in characters, separators included."""
    documents: int
    """Number of documents; 1 for a plain text."""
    lengths: tuple[int, ...] = ()
    """Characters per document, for a list of at most 10; else the first and the last 5."""
    digest: str = ""
    """SHA-256 over texts, names and separators: equal digests mean equal contexts."""
    source: str = "text"
    """Where it came from: ``text``, ``files`` or ``subcall``."""
    manifest: str = ""
    """Name of the blob in the log that says how to open it again; empty when there is none."""


FORM = "Question: {question}\nSnippet:\n"
"""How the functions of a session put a question before the text that it is about."""
HostKind = Literal["subcall", "budget", "forecast", "clock", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCall:
    """One question that code asks of the host while its cell is paused."""

    fn: str
    """The function that the code called, such as ``llm_query`` or ``ask_chunks``; for the trace. Of
    a tool its name, which says what is called."""
    prompt: str
    """The whole prompt for the sub-model. Of a tool its arguments: a JSON object, by the names of
    its parameters."""
    question: str | None = None
    """The question alone, where the function had one: the query of a recursive sub-run."""
    model: str | None = None
    """Name of the adapter asked for; None for the run's subcall adapter."""
    max_tokens: int | None = None
    """Completion limit in tokens; None for the run's `subcall_max_tokens`."""
    recursive: bool | None = None
    """True or False when the function decides (`rlm_query`); None when the run's options do."""
    dedupe: bool = True
    """Whether an identical call of the same pause may answer this one too."""
    is_sample: bool = False
    """Whether it is one of several attempts: a cache keeps a reply of its own for each."""
    kind: HostKind = "subcall"
    """``subcall``: for a model. ``budget``: what is left of the run's limits; answered at once.
    ``forecast``: what many subcalls would take, see `rlm_fsm.forecast`; answered at once.
    ``clock``: what time it is, as `CodePaused.now_s` has it.
    ``tool``: for a function of the caller's program, see `rlm_fsm.tool_calls`."""
    schema: str | None = None
    """JSON schema, as JSON, that the reply must fit; its outcome is then the value as JSON."""
    fault: str = ""
    """Why the host can't ask it: its schema can't be used. Such a call is answered with this."""

    @property
    def text(self) -> str:
        """What the question is asked about: the prompt without it, where it stands before (`FORM`).
        That, and not the question, is what a sub-run searches."""
        if not self.question:
            return self.prompt
        return self.prompt.removeprefix(FORM.format(question=self.question))


OutcomeKind = Literal["text", "error", "limit", "denied", "stop"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one host call ended, as its cell learns it."""

    kind: OutcomeKind
    """``text``: answered. ``error``: the call failed. ``limit``: a limit forbade it. ``denied``: a
    person did. ``stop``: the cell asks in vain for ever, and its session is to end it."""
    text: str
    """The answer, or what went wrong. Of a tool its result as JSON."""
    limit: str | None = None
    """The limit that forbade the call, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeError:
    """What a cell raised."""

    kind: str
    """Name of the exception's class."""
    message: str
    """`str` of the exception."""
    traceback: str = ""
    """Python's rendering, frames of the model's code only, ending with ``kind: message``."""

    def __str__(self) -> str:
        return self.traceback or (f"{self.kind}: {self.message}" if self.message else self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFinal:
    """A final answer that code gave. Whether it is accepted is the machine's to say."""

    form: FinalForm
    text: str
    """The value as Python prints it."""
    kind: str = "str"
    """Name of the value's type; ``dict`` for ``SUBMIT`` with named fields."""
    data: str | None = None
    """The value as canonical JSON (keys sorted, no spaces). None when it is a text, which `text`
    holds, and when JSON can't say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One place in which a value doesn't fit the type that was asked for. Bounded texts."""

    path: str
    """Where in the value, such as ``items[2].price``; empty for the value itself."""
    message: str
    found: str = ""
    """The value that stands there, as JSON, cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Whether a text or value fits the type that was asked for."""

    value: str | None = None
    """The value that was accepted, as JSON; None when nothing fits."""
    problems: tuple[Problem, ...] = ()
    """What doesn't fit, the first few; empty when `value` isn't None."""
    more_problems: int = 0
    """How many more there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable that a cell made or changed."""

    name: str
    summary: str = ""
    """Type, size and a short preview, within bounds."""
    is_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeResult:
    """How a cell ended; made by a REPL, carried by `CodeExecuted`."""

    stdout: str = ""
    """What it printed, echoes of trailing expressions included, up to the REPL's limit."""
    stdout_chars: int = 0
    """How much it printed in all; more than `len(stdout)` when the limit cut it."""
    error: CodeError | None = None
    watched: Mapping[str, str] = field(default_factory=dict[str, str])
    """Values of the watched variables that exist and are not empty, as text."""
    repl_lost: bool = False
    """True when the session died with the cell, so that its variables are gone."""
    final: GivenFinal | None = None
    """The final answer that its code gave, also when it raised afterwards."""
    variables: tuple[Variable, ...] = ()
    """New and changed variables, or the names of all simple ones, as the session was told."""
    more_variables: int = 0
    """How many more there are than `variables` lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """What reading a variable for an answer gave."""

    text: str | None = None
    """The value as Python prints it; None when there is no such variable or it can't be read."""
    error: str | None = None
    """Why it can't be read, when it exists."""
    names: tuple[str, ...] = ()
    """The user's variables, when `text` is None: the model is told what it could have meant."""


Messages = Sequence[Mapping[str, str]]
"""What adapters are given: chat messages with ``role`` and ``content``."""
