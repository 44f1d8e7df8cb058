"""What the sandbox's Python lacks, and what to write instead.

One table for the errors that the model sees (`_monty_errors`), for the tests, and for the page
``docs/reference/monty.md``. Gaps are matched by message, since the sandbox raises the same
classes as for genuine mistakes.
"""

import builtins
import importlib
import re
import types
from dataclasses import dataclass

from effects.repls._monty_shims import MODULES, SHIMS

_MODULES = (
    "base64 binascii bisect collections copy csv dataclasses datetime decimal functools hashlib "
    "itertools json math os pathlib random re sys time tomllib typing unicodedata"
)
AVAILABLE = frozenset(_MODULES.split())
"""Modules that the sandbox itself has."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that the sandbox lacks."""

    pattern: str
    """A regular expression for the sandbox's message."""
    advice: str
    """What to do, as a sentence."""
    example: str
    """Code that meets the gap."""


GAPS: tuple[Gap, ...] = (
    Gap(
        r"parser does not yet support yield",
        "Build a list and return it instead of yielding.",
        "def f():\n    x = yield 1",
    ),
    Gap(
        r"parser does not yet support the 'del'",
        "Assign None, or use list.pop or dict.pop.",
        "def f():\n    x = 1\n    del x",
    ),
    Gap(
        r"parser does not yet support class inheritance",
        "Write a plain class; raise a builtin exception such as ValueError.",
        "class E(Exception):\n    pass",
    ),
    Gap(
        r"parser does not yet support method decorators",
        "Write plain methods or functions.",
        "class A:\n    @property\n    def x(self):\n        return 1",
    ),
    Gap(
        r"parser does not yet support async (for|comp)",
        "Use an ordinary loop and await in its body, or asyncio.gather.",
        "async def f(xs):\n    async for x in xs:\n        print(x)",
    ),
    Gap(
        r"parser does not yet support exception groups",
        "Write except instead of except*.",
        "try:\n    pass\nexcept* ValueError:\n    pass",
    ),
    Gap(r"parser does not yet support", "Write it in simpler Python.", ""),
    Gap(r"Wildcard imports", "Name what you import.", "from math import *"),
    Gap(
        r"cannot suspend in this synchronous context",
        "Functions of the runtime can't be called inside map, filter, a sort key or __str__: "
        "use a for loop or a list comprehension, or llm_batch.",
        "g = map\nlist(g(lambda t: peek(1), ['a']))",
    ),
    Gap(
        r"'list' object is not an iterator",
        "Generators and map, zip, filter are lists here: use next(iter(...)).",
        "next(zip([1], [2]))",
    ),
    Gap(
        r"callable replacement is not yet",
        "Loop over re.finditer and build the text yourself.",
        "import re\nf = re.sub\nf('a', lambda m: 'b', 'a')",
    ),
    Gap(
        r"Pattern\.\w+\(\) takes (exactly|at most)",
        "Patterns take no start and end here: slice the text and add the offset.",
        "import re\nre.compile('a').search('ba', 1)",
    ),
    Gap(
        r"re\.Match\.groups\(\) takes no arguments",
        "Put the default in yourself: [g or '' for g in m.groups()].",
        "import re\nre.match('(a)(b)?', 'a').groups('')",
    ),
    Gap(
        r"first argument must be string or compiled pattern",
        "Patterns are texts here, not bytes: decode first.",
        "import re\nre.findall(rb'a', b'a')",
    ),
    Gap(
        r"JSONEncoder.*unexpected keyword argument 'default'",
        "Turn the values into texts and numbers before json.dumps.",
        "import json\njson.dumps([1], default=str)",
    ),
    Gap(
        r"cannot convert 'list' object to bytes",
        "Use ''.join(map(chr, codes)).encode('latin-1').",
        "bytes([65])",
    ),
    Gap(
        r"async with isn't available",
        "Await in an ordinary function; a limit on parallel subcalls isn't needed.",
        "import asyncio\nasync with asyncio.gather() as x:\n    pass",
    ),
    Gap(r"Permission denied", "There are no files here: P and ctx hold the context.", "open('x')"),
    Gap(
        r"not supported in this environment",
        "There is no system to ask here.",
        "import os\nos.environ",
    ),
    Gap(
        r"'TextView' object is not subscriptable",
        "Use ctx.slice(start, end) or P[start:end].",
        "ctx[0:5]",
    ),
    Gap(
        r"object of type 'TextView' has no len",
        "Use ctx.len_chars() or ctx.num_documents().",
        "len(ctx)",
    ),
    Gap(r"argument of type 'TextView'", "Use ctx.find(text), or text in P.", "'a' in ctx"),
    Gap(
        r"'TextView' object is not iterable",
        "Use ctx.get_document(i) for i in range(ctx.num_documents()).",
        "for d in ctx: pass",
    ),
    Gap(
        r"has no attribute 'results'",
        "Only a SubcallError has them, until the cell ends that raised it; write e.results as it "
        'stands, or pass on_error="return".',
        "try:\n    int('x')\nexcept ValueError as e:\n    e.results",
    ),
    Gap(
        r"'function' object has no attribute",
        "Functions have no attributes here.",
        "def f(): pass\nf.__name__",
    ),
    Gap(
        r"Error' object has no attribute '(msg|pos|lineno|colno|doc|errno|__\w+__)'",
        "Errors carry no data here: use str(error).",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__cause__",
    ),
    Gap(
        r"name '(globals|dir|vars)' is not defined",
        "It isn't available here: SHOW_VARS() lists the variables.",
        "def f():\n    return globals()\nf()",
    ),
    Gap(
        r"name '(exit|quit)' is not defined|module 'sys' has no attribute 'exit'",
        "A cell can't be left early: put the rest into an if.",
        "exit()",
    ),
    Gap(
        r"name '(bytearray|classmethod|compile|delattr|help|input|issubclass|memoryview|"
        r"staticmethod|super|__import__)' is not defined",
        "This builtin isn't available here.",
        "input()",
    ),
    Gap(r"frame of \d+ bytes exceeds", "Pass smaller pieces.", ""),
    Gap(
        r"exceptions can only be called with zero or one string",
        "Give the exception one text.",
        "raise SystemExit(1)",
    ),
)
INSTEAD_OF_MODULE = {
    "collections.abc": "isinstance(x, (list, tuple, set, dict))",
    "concurrent": "llm_batch(prompts) asks in parallel",
    "contextlib": "use try and finally",
    "enum": "use constants",
    "fractions": "decimal and integers are there",
    "logging": "print",
    "numpy": "lists, sum and statistics",
    "pandas": "csv.DictReader over text.splitlines()",
    "threading": "llm_batch(prompts) asks in parallel",
    "traceback": "print(type(e).__name__, e)",
    "urllib": "there is no network; split the text",
    "xml": "re.findall on the text",
}
"""What does the work of modules that aren't there."""
INSTEAD_OF_NAME = {
    "OrderedDict": "a dict keeps its order",
    "ChainMap": "merge the dicts with |",
    "NamedTuple": "use collections.namedtuple",
    "TypedDict": "use dict",
    "asdict": "read the fields one by one",
    "cmp_to_key": "sort with a key",
    "wraps": "leave it out",
    "VERBOSE": "write the pattern without spaces and comments",
    "X": "write the pattern without spaces and comments",
    "subn": "count with len(re.findall(...))",
    "TaskGroup": "use asyncio.gather",
    "Lock": "await one call after the other",
    "Queue": "use a list, and asyncio.gather",
    "BytesIO": "use StringIO",
    "Template": "use an f-string",
    "merge": "use sorted(a + b)",
    "lastindex": "look at m.groups()",
    "expand": "use m.group(...)",
}
"""What does the work of parts of modules and methods that aren't there."""

_METHOD = re.compile(r"(?:'([\w.]+)' object|type object '(\w+)') has no attribute '(\w+)'")
_PART = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_IMPORTED = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")
_SHIM = re.compile(r"'_rlm_module' object has no attribute '(\w+)'")
_KINDS: dict[str, type[object]] = {
    "re.Pattern": re.Pattern,
    "re.Match": re.Match,
    "function": types.FunctionType,
}


def hint(message: str) -> str | None:
    """A way round what the message complains of, as a sentence; None for ordinary errors."""
    if module := re.match(r"No module named '([\w.]+)", message):
        return _missing_module(module[1])
    if (part := _SHIM.search(message)) is not None:
        return _missing("Only a part of this module is here", part[1])
    if (part := _PART.search(message)) and _module_has(part[1], part[2]):
        return _missing(f"{part[1]}.{part[2]} isn't available here", part[2])
    if (part := _IMPORTED.search(message)) and _module_has(part[2], part[1]):
        return _missing("It isn't available here", part[1])
    for gap in GAPS:
        if re.search(gap.pattern, message):
            return gap.advice
    if (method := _METHOD.search(message)) and _is_pythons(method[1] or method[2], method[3]):
        if method[3] in INSTEAD_OF_NAME:
            return _missing("It isn't available here", method[3])
        return "It isn't available here, or not as a value: write a lambda that calls it."
    return None


def plain(message: str) -> str:
    """The message without names that only the bridges know."""
    return message.replace("'_rlm_module' object has", "module has")


def _missing(what: str, name: str) -> str:
    instead = INSTEAD_OF_NAME.get(name)
    return f"{what}: {instead}." if instead else f"{what}."


def _missing_module(module: str) -> str:
    top = module.partition(".")[0]
    if top in MODULES:
        return f"Only these names of {top} are here: {' '.join(SHIMS[top].names)}."
    instead = INSTEAD_OF_MODULE.get(module) or INSTEAD_OF_MODULE.get(top)
    available = " ".join(sorted([*AVAILABLE, *MODULES]))
    return f"Available: {available}." + (f" Instead: {instead}." if instead else "")


def _module_has(module: str, name: str) -> bool:
    """Whether CPython has what the sandbox hasn't: otherwise the mistake is the code's own."""
    return module in AVAILABLE and hasattr(importlib.import_module(module), name)


def _is_pythons(kind: str, attribute: str) -> bool:
    owner = _KINDS.get(kind) or getattr(builtins, kind, None)
    return isinstance(owner, type) and hasattr(owner, attribute)
