"""What an adapter is, and how one fails.

An adapter turns chat messages into a `ModelResponse`. It needs one method, `complete` or
`acomplete`; with both, the asynchronous one is used. No base class is needed.
"""

from typing import Protocol, runtime_checkable

from rlm_fsm.errors import RLMError
from rlm_fsm.values import Messages, ModelResponse


@runtime_checkable
class ModelAdapter(Protocol):
    """Anything that answers chat messages.

    `messages` are dicts with ``role`` (``system``, ``user``, ``assistant``) and ``content``;
    an adapter must not change them. An adapter may also have
    ``async acomplete(messages, *, max_tokens, temperature)`` (preferred when present),
    ``async aclose()``, ``model: str``, and ``identity``: a mapping, without secrets, of all that
    its answers depend on besides the arguments; caches go by it, or else by class and model.
    """

    def complete(
        self, messages: Messages, *, max_tokens: int = 512, temperature: float = 0.0
    ) -> ModelResponse:
        """Answer the messages with at most `max_tokens` generated tokens."""
        ...


class AdapterError(RLMError):
    """A model call that failed, classified. Adapters raise it; the interpreter makes it an event.

    `kind` is ``auth``, ``rate_limit``, ``timeout``, ``connection``, ``server``, ``bad_request``,
    ``bad_response`` or ``adapter``; `status` the HTTP status, if there was one.
    """

    def __init__(self, message: str, *, kind: str = "adapter", status: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
