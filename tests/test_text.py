"""The `ctx` of model-written code: offsets, searching, chunks, pages."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effects.repls._text import METHODS, TextView, extract_after, peek, tail

ANY_TEXT = st.text(st.characters(), max_size=60)
"""All of Unicode, lone surrogates included."""
TRICKY_TEXT = st.text("aAbBsSſßẞiIİıkKKſtﬁΣσς\u0307 \n.😀\ud800", max_size=40)
"""Characters whose lower, upper or folded forms differ in number or in length."""


def view_of(*docs: str) -> TextView:
    text, spans = "", list[tuple[int, int]]()
    for doc in docs:
        text += "|" if spans else ""
        spans.append((len(text), len(text) + len(doc)))
        text += doc
    return TextView(text, spans, "document_list")


def test_a_plain_text_is_one_document() -> None:
    view = TextView("hello")
    assert (view.kind, view.num_documents(), view.document_lengths()) == ("string", 1, [5])
    assert view.get_document(0) == view.text == "hello"
    assert view.spans == ((0, 5),)


def test_a_list_of_no_documents_has_none() -> None:
    view = TextView("", [], "document_list")
    assert (view.num_documents(), view.get_document(0), view.chunk_documents()) == (0, None, [])


def test_a_document_out_of_range_is_none() -> None:
    view = view_of("a", "b")
    assert [view.get_document(i) for i in (-1, 0, 1, 2)] == [None, "a", "b", None]


@given(st.lists(ANY_TEXT, max_size=6))
def test_spans_slice_back_to_the_documents(docs: list[str]) -> None:
    view = view_of(*docs)
    assert [view.text[start:end] for start, end in view.spans] == docs == list(view)
    assert [view.get_document(i) for i in range(view.num_documents())] == docs
    assert view.document_lengths() == [len(doc) for doc in docs]


def test_spans_outside_the_text_are_refused() -> None:
    for span in [(0, 4), (-1, 2), (2, 1)]:
        with pytest.raises(ValueError, match="doesn't lie in a text of 3 characters"):
            TextView("abc", [span])


def test_names_must_be_as_many_as_documents() -> None:
    with pytest.raises(ValueError, match="1 names for 2 documents"):
        TextView("ab", [(0, 1), (1, 2)], "document_list", ["x"])


def test_spans_may_come_as_lists_from_json() -> None:
    view = TextView("abc", [[0, 1], [2, 3]], "document_list")
    assert list(view) == ["a", "c"]


def test_slice_brings_its_bounds_into_the_text() -> None:
    view = TextView("hello")
    assert view.slice(1, 3) == "el"
    assert view.slice(-5, 99) == "hello"
    assert view.slice(4, 2) == view.slice(9, 12) == view.slice(0, -1) == ""
    assert view.slice(2) == "llo"


@given(ANY_TEXT, st.integers(-80, 80), st.integers(-80, 80))
def test_a_slice_is_what_clamped_offsets_give(text: str, start: int, end: int) -> None:
    expected = "".join(c for i, c in enumerate(text) if start <= i < end)
    assert TextView(text).slice(start, end) == expected


def test_find_gives_offsets_and_the_text_found() -> None:
    view = TextView("one two one")
    assert view.find("one") == [(0, 3, "one"), (8, 11, "one")]
    assert view.find("One") == []
    assert view.find("ONE", case_sensitive=False) == [(0, 3, "one"), (8, 11, "one")]
    assert view.find("t.o", True) == view.find("t.o", regex=True) == [(4, 7, "two")]
    assert view.find("t.o") == []


def test_find_stops_at_max_matches() -> None:
    view = TextView("a" * 100)
    assert len(view.find("a")) == 20
    assert len(view.find("a", max_matches=3)) == len(view.find("a", True, max_matches=3)) == 3
    assert (
        len(view.find("a", max_matches=None)) == len(view.find("a", True, max_matches=None)) == 100
    )
    assert view.find("a", max_matches=0) == view.find("a", max_matches=-1) == []


def test_an_empty_pattern_finds_nothing() -> None:
    view = TextView("abc")
    assert view.find("") == view.find("", True) == view.find("", case_sensitive=False) == []


def test_literal_matches_do_not_overlap() -> None:
    assert TextView("aaaa").find("aa") == [(0, 2, "aa"), (2, 4, "aa")]


def test_signs_of_regular_expressions_are_literal_unless_asked_for() -> None:
    view = TextView("a+b (A+B)")
    assert view.find("a+b") == [(0, 3, "a+b")]
    assert view.find("a+b", case_sensitive=False) == [(0, 3, "a+b"), (5, 8, "A+B")]


def test_flags_are_added_to_those_of_a_compiled_pattern() -> None:
    view = TextView("Ab\nAB")
    assert view.find(re.compile("ab")) == []
    assert view.find(re.compile("ab"), case_sensitive=False) == [(0, 2, "Ab"), (3, 5, "AB")]
    multiline = re.compile("^ab$", re.MULTILINE)
    assert view.find(multiline, flags=re.IGNORECASE) == [(0, 2, "Ab"), (3, 5, "AB")]


def test_flags_make_the_pattern_a_regular_expression() -> None:
    view = TextView("x\nab\nAB")
    assert view.find("^a.$", flags=re.MULTILINE) == [(2, 4, "ab")]
    assert len(view.find("^a.$", flags=re.MULTILINE, case_sensitive=False)) == 2


def test_a_compiled_pattern_is_taken_as_it_is() -> None:
    assert TextView("x AB").find(re.compile("ab", re.IGNORECASE)) == [(2, 4, "AB")]


def test_a_broken_regular_expression_says_so() -> None:
    with pytest.raises(ValueError, match=r"no regular expression.*regex=False"):
        TextView("abc").find("(", True)


def test_offsets_stay_right_where_lower_casing_changes_a_length() -> None:
    view = TextView("İİİ Needle")
    assert len(view.text.lower()) > len(view.text)
    assert view.find("needle", case_sensitive=False) == [(4, 10, "Needle")]


@given(TRICKY_TEXT, TRICKY_TEXT, TRICKY_TEXT, st.booleans())
def test_find_meets_every_text_it_is_given(before: str, piece: str, after: str, case: bool) -> None:
    text = before + piece + after
    found = TextView(text).find(piece, case_sensitive=case, max_matches=None)
    assert all(text[start:end] == hit for start, end, hit in found)
    assert [start for start, _, _ in found] == sorted({start for start, _, _ in found})
    if piece:
        # The occurrence put there is found, or one that overlaps it is.
        at = len(before)
        assert any(start < at + len(piece) and at < end for start, end, _ in found)
        assert all(len(hit) == len(piece) for _, _, hit in found)
    if case:
        assert all(hit == piece for _, _, hit in found)


@given(ANY_TEXT, st.integers(1, 20), st.integers(0, 19))
def test_chunks_cover_the_text_and_overlap_as_asked(text: str, size: int, overlap: int) -> None:
    overlap %= size
    chunks = TextView(text).chunk(size, overlap)
    assert all(text[start:end] == piece for start, end, piece in chunks)
    assert "".join(piece[0 if i == 0 else overlap :] for i, (_, _, piece) in enumerate(chunks)) == (
        text
    )
    assert all(len(piece) == size for _, _, piece in chunks[:-1])
    assert all(0 < len(piece) <= size for _, _, piece in chunks)
    assert all(a[1] - b[0] == overlap for a, b in pairwise(chunks))


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, 0), (5, 5), (5, -1), (5, 6)])
def test_chunks_that_could_not_end_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        TextView("abc").chunk(size, overlap)


@given(st.lists(ANY_TEXT, max_size=7), st.integers(1, 4))
def test_groups_of_documents_hold_each_document_once(docs: list[str], size: int) -> None:
    groups = view_of(*docs).chunk_documents(size)
    assert [doc for _, _, group in groups for doc in group] == docs
    assert all(docs[i:j] == group and 0 < len(group) <= size for i, j, group in groups)


def test_groups_need_a_size() -> None:
    with pytest.raises(ValueError, match="docs_per_chunk must be 1 or more"):
        view_of("a").chunk_documents(0)


def test_a_page_reaches_from_its_marker_to_the_next() -> None:
    view = TextView("intro<!-- Page 1 -->one<!-- Page 12 -->twelve\n<!-- Page 2 -->two")
    assert [view.page(n) for n in (1, 12, 2)] == ["one", "twelve\n", "two"]
    assert view.page(3) is view.page(0) is TextView("none").page(1) is None


def test_metadata_tells_the_shape_and_never_the_text() -> None:
    assert TextView("abc").metadata() == {
        "context_type": "string",
        "total_length": 3,
        "num_documents": 1,
    }
    view = TextView("abc", [(0, 1), (1, 3)], "document_list", ["x.md", "y.md"])
    assert view.metadata() == {
        "context_type": "document_list",
        "total_length": 3,
        "num_documents": 2,
        "document_names": ["x.md", "y.md"],
        "document_lengths": [1, 2],
    }


def test_printing_the_context_shows_a_summary() -> None:
    assert (
        str(TextView("secret")) == repr(TextView("secret")) == ("<ctx: 6 characters in 1 document>")
    )
    assert f"{view_of('a' * 1500, 'b')}" == "<ctx: 1,502 characters in 2 documents>"


def test_the_context_is_like_a_text_for_len_slices_and_in() -> None:
    view = TextView("hello")
    assert (len(view), view[1:3], view[-2:], "ell" in view, "x" in view) == (
        5,
        "el",
        "lo",
        True,
        False,
    )
    assert 5 not in view
    with pytest.raises(TypeError, match=r"ctx\.get_document"):
        view[0]


def test_the_context_cannot_be_changed() -> None:
    view = TextView("hello")
    for name in ("text", "spans", "kind", "names", "other"):
        with pytest.raises(AttributeError):
            setattr(view, name, "x")


def test_every_listed_method_is_there() -> None:
    assert all(callable(getattr(TextView("x"), name)) for name in METHODS)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda v: v.find(5), "pattern must be a text"),
        (lambda v: v.find("a", max_matches="2"), "max_matches must be a whole number"),
        (lambda v: v.slice("a", 2), "start must be a whole number"),
        (lambda v: v.slice(0, 2.5), "end must be a whole number"),
        (lambda v: v.chunk(1e3), "size must be a whole number .int., not float"),
        (lambda v: v.chunk(5, None), "overlap must be a whole number"),
        (lambda v: v.get_document("a"), "i must be a whole number"),
        (lambda v: v.page("3"), "n must be a whole number"),
        (lambda v: v.chunk_documents("3"), "docs_per_chunk must be a whole number"),
        (lambda v: v.peek("3"), "n must be a whole number"),
        (lambda v: v.tail(None), "n must be a whole number"),
        (lambda v: v.extract_after(3), "marker must be a text"),
    ],
)
def test_a_wrong_type_says_what_was_expected(call, said) -> None:
    with pytest.raises(TypeError, match=said):
        call(TextView("abc"))


def test_peek_and_tail_give_both_ends() -> None:
    assert (peek("hello", 2), tail("hello", 2)) == ("he", "lo")
    assert peek("hello", 0) == peek("hello", -3) == tail("hello", 0) == tail("hello", -3) == ""
    assert peek("hello", 99) == tail("hello", 99) == "hello"
    assert len(peek("x" * 3000)) == len(tail("x" * 3000)) == 2000


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("key: value.", "value"),
        ("key:value", "value"),
        ('key: "value", and', "value"),
        ("key: **value**", "value"),
        ("key: (value)", "value"),
        ("key: -> value", "value"),
        ("key:\n\n  value", "value"),
        ("key: $1,200.50.", "$1,200.50"),
        ("key: -5", "-5"),
        ("key: C++;", "C++"),
        ("key: naïve…", "naïve"),
        ("key: 「東京」。", "東京"),
        ("key: +", "+"),
        ("key: value key: other", "value"),
        ("key:", None),
        ("key: ... !", None),
        ("nothing here", None),
    ],
)
def test_extract_after_gives_the_first_word(text: str, word: str | None) -> None:
    assert extract_after(text, "key:") == word


def test_extract_after_gives_the_rest_of_the_line_on_request() -> None:
    assert extract_after("key:  a b, c. \r\nnext", "key:", until="line") == "a b, c."
    assert extract_after("key: \nnext", "key:", until="line") is None


def test_extract_after_looks_no_further_than_max_len() -> None:
    assert extract_after("key: abcdef", "key:", 4) == "abc"
    assert extract_after("key:" + " " * 128 + "far", "key:") is None
    assert extract_after("key: abcdef ghi", "key:", 8, until="line") == "abcdef"
    assert extract_after("key: abc", "key:", 0) is extract_after("key: abc", "key:", -1) is None


def test_extract_after_an_empty_marker_is_none() -> None:
    assert extract_after("abc", "") is None


def test_extract_after_refuses_an_unknown_end() -> None:
    with pytest.raises(ValueError, match="'token' or 'line'"):
        extract_after("key: abc", "key:", until="word")
