"""Contexts: from texts, documents, files and folders; digests; what is told of bad files."""

import os
import tracemalloc
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effects.context import SEPARATOR, Context
from effects.repls._text import METHODS
from rlm_fsm.errors import UsageError

ANY_TEXT = st.text(st.characters(), max_size=30)
"""All of Unicode, lone surrogates included."""


def lay_out(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


# -- texts and documents


def test_from_text_is_one_plain_text() -> None:
    context = Context.from_text("hello")
    assert (context.text, context.kind, context.spans) == ("hello", "string", ((0, 5),))
    assert (context.num_documents(), context.get_document(0)) == (1, "hello")
    assert (context.names, context.skipped) == (None, ())


def test_from_text_does_not_copy_the_text() -> None:
    text = "x" * 5_000_000
    tracemalloc.start()
    try:
        context = Context.from_text(text)
        context.digest()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert context.text is text
    assert peak < len(text), "a digest takes the text piece by piece"


@given(st.lists(ANY_TEXT, max_size=6), st.sampled_from([SEPARATOR, "", "|"]))
def test_documents_are_spans_over_one_text(docs: list[str], separator: str) -> None:
    context = Context.from_documents(docs, separator=separator)
    assert context.kind == "document_list"
    assert context.text == separator.join(docs)
    assert [context.text[start:end] for start, end in context.spans] == docs
    assert [context.get_document(i) for i in range(context.num_documents())] == docs
    assert context.document_lengths() == [len(doc) for doc in docs]


def test_documents_may_have_names() -> None:
    context = Context.from_documents(["a", "b"], names=("x", "y"))
    assert context.names == ("x", "y")
    assert context.metadata()["document_names"] == ["x", "y"]
    with pytest.raises(UsageError, match="1 names for 2 documents"):
        Context.from_documents(["a", "b"], names=["x"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Context.from_text(b"x"), "takes a text .str., not bytes"),
        (lambda: Context.from_documents("abc"), "docs must be a list of texts .str., not str"),
        (lambda: Context.from_documents(3), "docs must be a list of texts .str., not int"),
        (lambda: Context.from_documents(["a", 3]), r"docs\[1\] must be a text .str., not int"),
        (lambda: Context.from_documents(["a"], names="x"), "names must be a list"),
        (lambda: Context.from_documents(["a"], separator=None), "separator takes a text"),
        (lambda: Context.from_files([3]), "paths .str or Path., not int"),
    ],
)
def test_a_wrong_type_says_what_was_expected(make: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        make()


def test_the_methods_are_those_of_the_view() -> None:
    context = Context.from_documents(["one <!-- Page 1 -->first", "two"])
    view = context.view
    assert context.len_chars() == view.len_chars() == len(context.text)
    assert context.slice(0, 3) == view.slice(0, 3) == "one"
    assert context.find("O", True, max_matches=1, case_sensitive=False) == [(0, 1, "o")]
    assert context.find("^two", flags=8) == view.find("^two", flags=8) != []
    assert context.chunk(10, 2) == view.chunk(10, 2)
    assert context.chunk_documents(1) == view.chunk_documents(1)
    assert context.page(1) == view.page(1)
    assert context.metadata() == view.metadata()
    here = set(METHODS) - {"peek", "tail", "extract_after"}
    assert all(callable(getattr(context, name)) for name in here)


def test_a_context_cannot_be_changed() -> None:
    context = Context.from_text("hello")
    for name in ("text", "spans", "kind", "names", "view", "skipped", "other"):
        with pytest.raises(AttributeError):
            setattr(context, name, "x")


def test_printing_a_context_shows_a_summary() -> None:
    assert repr(Context.from_text("secret")) == "<Context: 6 characters in 1 document>"


# -- digests and info


def test_a_digest_is_sha256_and_the_same_each_time() -> None:
    context = Context.from_text("hello")
    assert context.digest() == context.digest() == Context.from_text("hello").digest()
    # Pinned: logs name contexts by it, so it must not change between versions.
    assert context.digest() == sha256(b"rlm-fsm context 1\n6:string3:0-51:-5:hello").hexdigest()


@given(st.lists(ANY_TEXT, max_size=4), st.lists(ANY_TEXT, max_size=4))
def test_digests_are_equal_for_equal_documents_only(one: list[str], other: list[str]) -> None:
    first, second = Context.from_documents(one), Context.from_documents(other)
    assert (first.digest() == second.digest()) == (one == other)


def test_boundaries_names_and_kind_are_part_of_the_digest() -> None:
    contexts = [
        Context.from_text("ab"),
        Context.from_documents(["ab"]),
        Context.from_documents(["a", "b"], separator=""),
        Context.from_documents(["ab", ""], separator=""),
        Context.from_documents(["a", "b"], separator="", names=["x", "y"]),
        Context.from_documents(["a", "b"], separator="", names=["xy", ""]),
        Context.from_documents(["a", "b"]),
        Context.from_documents(["a", "b"], separator="|"),
    ]
    assert len({context.digest() for context in contexts}) == len(contexts)


def test_lone_surrogates_have_a_digest() -> None:
    assert Context.from_text("\ud83d").digest() != Context.from_text("\ude00").digest()
    # A pair of surrogates isn't the character that UTF-16 writes with it.
    assert Context.from_text("\ud83d\ude00").digest() != Context.from_text("\U0001f600").digest()


def test_a_digest_does_not_depend_on_where_the_text_is_cut() -> None:
    text = "é" * ((1 << 20) - 1) + "\ud83d\ude00" + "z" * 9
    encoded = text.encode("utf-8", "surrogatepass")
    head = f"rlm-fsm context 1\n6:string{len(f'0-{len(text)}')}:0-{len(text)}1:-{len(text)}:"
    assert Context.from_text(text).digest() == sha256(head.encode() + encoded).hexdigest()


def test_info_is_what_the_core_is_told() -> None:
    info = Context.from_text("hello").info()
    assert (info.kind, info.chars, info.documents, info.lengths) == ("string", 5, 1, (5,))
    assert (info.source, info.digest) == ("text", Context.from_text("hello").digest())
    info = Context.from_documents(["a" * n for n in range(10)]).info()
    assert (info.kind, info.documents) == ("document_list", 10)
    assert info.lengths == tuple(range(10))


def test_info_of_many_documents_shows_the_first_and_last_five() -> None:
    info = Context.from_documents(["a" * n for n in range(11)]).info()
    assert info.documents == 11
    assert info.lengths == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)


# -- files


def test_from_files_reads_each_file_as_a_document(tmp_path: Path) -> None:
    lay_out(tmp_path, {"b.txt": "bee", "a.txt": "ay"})
    context = Context.from_files([tmp_path / "b.txt", str(tmp_path / "a.txt")])
    assert list(context.view) == ["bee", "ay"], "in the order given"
    assert context.names == ((tmp_path / "b.txt").as_posix(), (tmp_path / "a.txt").as_posix())
    assert context.kind == "document_list"
    assert context.info().source == "files"


def test_a_single_path_needs_no_list(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": "ay"})
    assert Context.from_files(tmp_path / "a.txt").text == "ay"
    assert Context.from_files(str(tmp_path / "a.txt")).text == "ay"


def test_globs_are_expanded_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(
        tmp_path, {f"d/{name}": name for name in ("c.md", "a.md", "sub/b.md", "x.txt", ".h.md")}
    )
    monkeypatch.chdir(tmp_path)
    assert Context.from_files("d/*.md").names == ("d/a.md", "d/c.md")
    assert Context.from_files("d/**/*.md").names == ("d/a.md", "d/c.md", "d/sub/b.md")
    assert Context.from_files("d/*").names == ("d/a.md", "d/c.md", "d/x.txt"), "no folders"


def test_a_file_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, {"a.md": "a", "b.md": "b"})
    monkeypatch.chdir(tmp_path)
    assert Context.from_files(["b.md", "*.md", "./a.md"]).names == ("b.md", "a.md")


def test_an_existing_name_is_no_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, {"a[1].md": "brackets", "a1.md": "plain"})
    monkeypatch.chdir(tmp_path)
    assert Context.from_files("a[1].md").text == "brackets"


def test_line_ends_are_kept_so_that_offsets_fit_the_file(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": b"one\r\ntwo\rthree\n"})
    context = Context.from_files(tmp_path / "a.txt")
    assert context.text == "one\r\ntwo\rthree\n"
    assert context.find("two") == [(5, 8, "two")]


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": b"\xef\xbb\xbfhi", "b.txt": "hé".encode("utf-16")})
    assert Context.from_files(tmp_path / "a.txt").text == "hi"
    assert Context.from_files(tmp_path / "a.txt", encoding="UTF8").text == "hi"
    assert Context.from_files(tmp_path / "a.txt", encoding="latin-1").text == "ï»¿hi"
    assert Context.from_files(tmp_path / "b.txt", encoding="utf-16").text == "hé"


def test_other_encodings_are_read_when_named(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": "né".encode("latin-1")})
    for encoding in ("latin-1", "cp1252"):
        assert Context.from_files(tmp_path / "a.txt", encoding=encoding).text == "né"
    with pytest.raises(UsageError, match="not ascii"):
        Context.from_files(tmp_path / "a.txt", encoding="ascii")


@pytest.mark.parametrize("encoding", ["utf-88", "base64", "undefined", "a\0b"])
def test_an_unknown_encoding_is_refused_before_reading(encoding: str) -> None:
    with pytest.raises(UsageError, match="no text encoding"):
        Context.from_files("there is no such file", encoding=encoding)


def test_all_bad_files_are_named_in_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(
        tmp_path,
        {
            "good.txt": "fine",
            "latin.txt": b"caf\xe9 au lait",
            "image.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            "folder/x": "x",
        },
    )
    monkeypatch.chdir(tmp_path)
    names = ["good.txt", "latin.txt", "image.png", "folder", "gone.txt", "good.txt/x", "*.pdf", ""]
    with pytest.raises(UsageError) as caught:
        Context.from_files([*names, "a\0b"])
    message = str(caught.value)
    assert message.startswith("8 paths can't be read as a context:\n")
    assert "latin.txt: not utf-8 (byte 3: " in message
    assert "image.png: a binary file" in message
    assert "folder: a folder; Context.from_dir" in message
    assert "gone.txt: not found" in message
    assert "good.txt/x: Not a directory" in message
    assert "*.pdf: no file matches" in message
    assert 'encoding="latin-1"' in message
    assert "good.txt:" not in message


def test_the_hint_at_encodings_comes_only_with_a_bad_encoding(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Context.from_files(tmp_path / "gone.txt")
    assert "encoding=" not in str(caught.value)
    assert str(caught.value).startswith("1 path can't be read")


def test_no_paths_at_all_is_an_error() -> None:
    with pytest.raises(UsageError, match="no paths"):
        Context.from_files([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": "x", "sub/b.txt": "y", "c.txt": "z"})
    (tmp_path / "a.txt").chmod(0)
    (tmp_path / "sub").chmod(0)
    try:
        with pytest.raises(UsageError) as caught:
            Context.from_dir(tmp_path)
    finally:
        (tmp_path / "sub").chmod(0o700)
    assert f"{tmp_path}/sub: Permission denied" in str(caught.value)
    assert "  a.txt: Permission denied" in str(caught.value)


# -- folders

TREE: dict[str, str | bytes] = {
    "b.txt": "b",
    "a/z.md": "z",
    "a/deep/er/y.md": "y",
    "a.txt": "a",
    ".hidden": "h",
    ".git/config": "g",
    "a/.cache/x": "x",
    "photo.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "old.txt": b"\xe9t\xe9",
}


def test_from_dir_reads_what_holds_text_and_tells_what_it_skipped(tmp_path: Path) -> None:
    context = Context.from_dir(lay_out(tmp_path, TREE))
    assert context.names == ("a/deep/er/y.md", "a/z.md", "a.txt", "b.txt")
    assert list(context.view) == ["y", "z", "a", "b"]
    assert [name for name, _ in context.skipped] == ["old.txt", "photo.jpg"]
    assert "not utf-8" in dict(context.skipped)["old.txt"]
    assert "binary" in dict(context.skipped)["photo.jpg"]


def test_names_and_digest_do_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    one = Context.from_dir(lay_out(tmp_path / "one", TREE))
    two = Context.from_dir(str(lay_out(tmp_path / "two", dict(reversed(TREE.items())))))
    assert one.digest() == two.digest()


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*", ["a.txt", "b.txt"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("**/*.md", ["a/deep/er/y.md", "a/z.md"]),
        ("./a/*", ["a/z.md"]),
        ("a/**", ["a/deep/er/y.md", "a/z.md"]),
        ("a/**/y.md", ["a/deep/er/y.md"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[!a].txt", ["b.txt"]),
    ],
)
def test_a_glob_chooses_among_the_files_of_a_folder(
    tmp_path: Path, glob: str, names: list[str]
) -> None:
    assert list(Context.from_dir(lay_out(tmp_path, TREE), glob=glob).names or ()) == names


def test_from_dir_takes_an_encoding(tmp_path: Path) -> None:
    context = Context.from_dir(lay_out(tmp_path, TREE), glob="old.*", encoding="latin-1")
    assert context.text == "été"


def test_links_are_read_once_and_never_walked_in_circles(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a/x.txt": "x"})
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.txt").symlink_to("a/x.txt")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe")
    context = Context.from_dir(tmp_path)
    assert context.names == ("a/x.txt",)
    assert context.skipped == tuple(
        (name, "not a regular file") for name in ("nowhere", "pipe", "self")
    )


def test_a_folder_without_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing matches, hidden files"):
        Context.from_dir(tmp_path)
    lay_out(tmp_path, {f"{n:02}.bin": b"\0" for n in range(25)})
    with pytest.raises(UsageError, match="no file with text") as caught:
        Context.from_dir(tmp_path)
    assert "00.bin: a binary file" in str(caught.value)
    assert "... and 5 more" in str(caught.value)


def test_a_folder_in_another_encoding_says_how_to_read_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='encoding="latin-1"'):
        Context.from_dir(lay_out(tmp_path, {"old.txt": b"\xe9"}))


def test_a_missing_folder_or_a_file_is_no_folder(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": "x"})
    with pytest.raises(UsageError, match=r"a\.txt: not a folder; Context\.from_files"):
        Context.from_dir(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="gone: No such file or directory"):
        Context.from_dir(tmp_path / "gone")


# -- what `run` accepts


def test_of_takes_what_a_run_accepts(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": "ay", "sub/b.txt": "bee"})
    context = Context.from_text("x")
    assert Context.of(context) is context
    assert Context.of("text").kind == "string"
    assert Context.of(str(tmp_path)).text == str(tmp_path), "a str is never a path"
    assert list(Context.of(["a", "b"]).view) == list(Context.of(("a", "b")).view) == ["a", "b"]
    assert Context.of(tmp_path / "a.txt").text == "ay"
    assert Context.of(tmp_path).names == ("a.txt", "sub/b.txt")


def test_of_takes_lists_of_files_and_folders(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.txt": "ay", "sub/b.txt": "bee", "sub/c.bin": b"\0"})
    context = Context.of([tmp_path / "sub", tmp_path / "a.txt", tmp_path])
    assert list(context.view) == ["bee", "ay"]
    assert context.names == (f"{tmp_path}/sub/b.txt", f"{tmp_path}/a.txt")
    assert context.skipped[0][0] == f"{tmp_path}/sub/c.bin"
    with pytest.raises(UsageError, match="2 paths can't be read"):
        Context.of([tmp_path / "x", tmp_path / "y", tmp_path / "a.txt"])


@pytest.mark.parametrize(
    "value", [None, 5, b"x", {"a": 1}, {"a"}, object(), ["a", 5], [Path(), "a"]]
)
def test_of_says_what_is_accepted(value: object) -> None:
    with pytest.raises(TypeError, match=r"a str \(the text itself\), a list of str"):
        Context.of(value)


def test_of_an_empty_list_is_an_error() -> None:
    for empty in ([], ()):
        with pytest.raises(UsageError, match="empty"):
            Context.of(empty)
