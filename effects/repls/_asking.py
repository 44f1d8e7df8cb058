"""All functions of a session that ask the host: sub-models, what is left, tools.

Standard library only, and nothing of this project: a sandboxed child process loads this file by
itself.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from effects.repls import _combinators, _functions, _functions_json, _tools
else:
    import _combinators
    import _functions
    import _functions_json
    import _tools


def programs(
    view: "_functions.View",
    *,
    parallel_subcalls: bool,
    styles: "_functions.Styles",
    tools: "Iterable[_tools.Tool]",
) -> "dict[str, Callable[..., _functions.Program]]":
    """The functions, by name."""
    return {
        **_functions.programs(view, parallel_subcalls=parallel_subcalls, styles=styles),
        **_functions_json.programs(),
        **_combinators.programs(),
        **_tools.programs(tools),
    }
