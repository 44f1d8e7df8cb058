"""Long contexts in the `python` backend: a mapped text says what a `str` says, and isn't copied."""

import asyncio
import fcntl
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repl_driving import answer_all, settings_of

from effects.context import Context
from effects.repls import _mapped, _sealed
from effects.repls._mapped import CODECS, LAZY_CHARS, MappedText
from effects.repls._text import TextView
from effects.repls.python import PythonRepl
from rlm_fsm.values import CodeResult

ASCII = "The key is APPLE.\n" + "hay and straw\n" * 80_000 + "The color is teal."
LATIN = ASCII.replace("straw", "stråw")
WIDE = ASCII.replace("straw", "stroœw")
ASTRAL = ASCII.replace("key", "🔑")
SURROGATES = ASCII.replace("hay", "h\ud83d\ude00y")
LONG = [ASCII, LATIN, WIDE, ASTRAL, SURROGATES]
ASKED: list[Callable[[TextView], Any]] = [
    lambda view: view.find("ab", max_matches=None),
    lambda view: view.find("a+b", True),
    lambda view: view.find("AB", case_sensitive=False),
    lambda view: view.find(re.compile("b.")),
    lambda view: [view.page(n) for n in range(5)],
    lambda view: view.chunk(7, 2),
    lambda view: (view.peek(5), view.tail(5), view.len_chars(), view[3:9], view[::-3]),
    lambda view: ("xab" in view, "zz" in view, list(view), view.get_document(1)),
    lambda view: (view.extract_after("Page", 9), view.extract_after("none")),
    lambda view: view.chunk_documents(1),
]
IDS = ["ascii", "latin", "wide", "astral", "surrogates"]


def mapped(text: str) -> MappedText:
    """A text in the layout that the host would choose for it."""
    file = _sealed.Sealed(TextView(text))
    return MappedText(memoryview(os.pread(file.fd, len(text) * file.width, 0)), file.width)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that a short text has many of."""
    monkeypatch.setattr(_mapped, "WINDOW_CHARS", 4)


@pytest.mark.parametrize(
    ("text", "width"),
    [("", 1), ("a" * 9, 1), ("é\xff", 1), ("aœ", 2), ("a🔑", 4), ("\ud83d\ude00", 4)],
)
def test_each_text_takes_the_narrowest_layout(text: str, width: int) -> None:
    file = _sealed.Sealed(TextView(text))
    assert file.width == width
    assert mapped(text).whole() == text


def test_a_wide_character_late_in_the_text_widens_all_of_it() -> None:
    for late, width in (("œ", 2), ("🔑", 4)):
        text = "é" * (LAZY_CHARS + 5) + late
        assert _sealed.Sealed(TextView(text)).width == width
        assert mapped(text).whole() == text


ALPHABET = st.text(st.sampled_from("ab é🔑œ\ud83d\ude00"), max_size=30)


@given(text=ALPHABET, piece=ALPHABET.map(lambda s: s[:7]), start=st.integers(0, 31))
def test_a_mapped_text_is_searched_and_cut_like_a_str(text: str, piece: str, start: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_mapped, "WINDOW_CHARS", 4)
        lazy = mapped(text)
        assert len(lazy) == len(text)
        assert lazy.find(piece, start) == text.find(piece, start)
        assert (piece in lazy) == (piece in text)
        for key in (slice(start), slice(-start, None), slice(start, 2), slice(None, None, -2)):
            assert lazy[key] == text[key]
        assert not lazy.is_made
        assert lazy.whole() == text
        assert lazy.find(piece, start) == text.find(piece, start)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("ask", ASKED)
def test_ctx_says_of_a_mapped_text_what_it_says_of_a_str(ask: Callable[[TextView], Any]) -> None:
    number = "1" * 100
    text = f"éab<!-- Page 1 -->xab<!-- Page {number} -->abc<!-- Page 2 --<!-- Page 3 -->ab"
    spans = [(0, 5), (7, len(text))]
    shape = (spans, "document_list", ["a", "b"])
    assert ask(TextView(mapped(text), *shape)) == ask(TextView(text, *shape))


def test_the_file_of_a_context_can_neither_be_written_to_nor_resized() -> None:
    file = _sealed.Sealed(TextView("some text"))
    writing = os.open(f"/proc/self/fd/{file.fd}", os.O_RDWR)
    for work in (
        lambda: os.write(file.fd, b"x"),
        lambda: os.write(writing, b"x"),
        lambda: os.ftruncate(writing, 0),
        lambda: os.ftruncate(writing, 99),
        lambda: fcntl.fcntl(writing, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ):
        with pytest.raises(OSError, match=r"not permitted|Bad file|Invalid argument"):
            work()
    os.close(writing)
    assert fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    seals = fcntl.fcntl(file.fd, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_WRITE
    assert seals & fcntl.F_SEAL_SEAL


def test_sessions_over_one_long_text_share_a_file_and_let_it_go() -> None:
    context, other = Context.from_text(ASCII), Context.from_documents([ASCII, "b"])

    async def take() -> list[_sealed.Sealed]:
        return await asyncio.gather(*[_sealed.sealed(context) for _ in range(5)])

    files = asyncio.run(take())
    assert len({id(file) for file in files}) == 1
    again = Context.from_text(ASCII)
    assert asyncio.run(_sealed.sealed(again)) is files[0]
    assert asyncio.run(_sealed.sealed(other)) is not files[0]
    fd = files[0].fd
    os.fstat(fd)
    files.clear()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


CELLS = (
    "print(ctx, lenP(), peek(20), tail(20), len(ctx), extract_after('color is'))",
    "print('P' in globals(), ctx.find('The color'), ctx[5:9], 'zebra' in ctx)",
    "print(ascii(P[4:12]), len(P), type(P), P is ctx.text, P == context)",
    "P = 'gone'",
    "print(len(P), ctx.find('^The c.*', flags=8))",
    "print(ctx.page(1))",
)


@pytest.mark.parametrize("text", LONG, ids=IDS)
def test_code_sees_a_long_text_as_it_is(text: str) -> None:
    outcomes = sessions_cells(Context.from_text(text), CELLS)
    at = text.find("The color")
    head = f"<ctx: {len(text):,} characters in 1 document> {len(text)} {text[:20]} {text[-20:]}"
    assert outcomes[0].stdout == f"{head} {len(text)} teal\n"
    # Naming it anywhere, as in globals()["P"], makes it.
    assert outcomes[1].stdout == f"True {[(at, at + 9, 'The color')]} {text[5:9]} False\n"
    shown = ascii(text[4:12])
    assert outcomes[2].stdout == f"{shown} {len(text)} <class 'str'> True True\n"
    line = [(at, len(text), "The color is teal.")]
    assert outcomes[4].stdout == f"{len(text)} {line}\n"
    assert outcomes[5].stdout == "None\n"
    assert [outcome.error for outcome in outcomes] == [None] * len(CELLS)


def test_the_text_is_made_only_when_code_names_it() -> None:
    names = "print([name for name in dir() if len(name) == 1])"
    cells = ("print(peek(3), ctx.find('color')) # PATTERN", names, "P and None", names)
    shown = [outcome.stdout for outcome in sessions_cells(Context.from_text(ASCII), cells)]
    assert shown[1] == "[]\n"
    assert shown[3] == "['P']\n"


def test_a_function_that_names_the_text_finds_it_in_later_cells() -> None:
    cells = ("def f(): return len(P)", "print(f())")
    assert sessions_cells(Context.from_text(ASCII), cells)[1].stdout == f"{len(ASCII)}\n"


def test_the_text_and_its_making_are_beyond_the_memory_limit() -> None:
    text = "œ" * (60 << 20)  # 120 MB, 180 while it is made
    cells = (
        "x = 'a' * (100 << 20)",  # and the rest of the limit is used before P is made
        "print(len(P), P[-1])",
        "y = 'a' * (40 << 20)",
        "del x; y = 'a' * (80 << 20); print(len(y))",
    )
    options = settings_of(memory_bytes=128 << 20)
    _, made, full, freed = sessions_cells(Context.from_text(text), cells, options)
    assert made.stdout == f"{len(text)} œ\n", made.error
    assert full.error is not None
    assert full.error.kind == "MemoryError"
    assert freed.stdout == f"{80 << 20}\n", freed.error


def test_what_is_sent_to_a_session_does_not_grow_with_its_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from effects.repls import _frames

    sent: list[int] = []
    encode = _frames.encode

    def counted(message: dict[str, Any], mark: bytes) -> bytes:
        frame = encode(message, mark)
        sent.append(len(frame))
        return frame

    monkeypatch.setattr(_frames, "encode", counted)
    cells = ("x = 1", "print(peek(3), ctx.find('hay', max_matches=2))", "print(len(P))")
    small = Context.from_documents(["hay"] * 3)
    large = Context.from_documents([ASCII] * 3 + ["hay"] * 5000)
    totals: list[list[int]] = []
    for context in (small, large):
        sent.clear()
        assert [each.error for each in sessions_cells(context, cells)] == [None] * 3
        totals.append(list(sent))
    assert len(totals[0]) == len(totals[1]) == 4
    digits = 24  # lengths are sent as numbers
    for of_small, of_large in zip(*totals, strict=True):
        assert of_large - of_small <= digits


def sessions_cells(
    context: Context, cells: tuple[str, ...], settings: Any = None
) -> list[CodeResult]:
    """The results of cells of one session."""

    async def run() -> list[CodeResult]:
        repl = PythonRepl(context, settings or settings_of())
        try:
            return [await answer_all(repl, cell) for cell in cells]
        finally:
            await repl.close()

    return asyncio.run(run())


def test_every_layout_has_a_codec() -> None:
    assert sorted(CODECS) == [1, 2, 4]
