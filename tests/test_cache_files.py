"""`FileCache`: the contract, damage of each kind, many processes, bounds, folders that can't be."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cache_contract import KEY, OTHER, REPLY, REQUEST, CacheContract

from effects.caches import entries
from effects.caches.base import Cache, CachedReply, CacheRequest
from effects.caches.keys import identity_of, key_of
from rlm_fsm import FakeAdapter, FileCache, OpenAICompatAdapter, UsageError


class Shelf:
    """The smallest cache that there can be: what the protocol asks of a user's own."""

    def __init__(self) -> None:
        self.entries: dict[str, CachedReply] = {}

    def get(self, key: str) -> CachedReply | None:
        return self.entries.get(key)

    def put(self, key: str, reply: CachedReply, request: CacheRequest) -> None:
        self.entries[key] = reply


class TestFileCache(CacheContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> Cache:
        return FileCache(self.folder / "cache")


class TestUnboundedFileCache(TestFileCache):
    def make(self) -> Cache:
        return FileCache(self.folder / "cache", max_bytes=None)


class TestOwnCache(CacheContract):
    def make(self) -> Cache:
        return Shelf()


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "cache")


def path_of(cache: FileCache, key: str = KEY) -> Path:
    return cache.root / key[:2] / f"{key}.json"


# -- entries


def test_an_entry_is_json_that_a_person_can_read(cache: FileCache):
    cache.put(KEY, REPLY, replace(REQUEST, prompt="why? " * 1_000))
    entry = json.loads(path_of(cache).read_text(encoding="ascii"))
    assert entry["reply"]["text"] == REPLY.text
    assert entry["request"]["adapter"] == {"kind": "k", "model": "m"}
    assert (len(entry["request"]["prompt"]), entry["request"]["prompt_chars"]) == (400, 5_000)


def test_entries_are_for_their_owner_only(cache: FileCache):
    cache.put(KEY, REPLY, REQUEST)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (cache.root, path_of(cache))]
    assert modes == [0o700, 0o600]


def test_nothing_is_left_beside_an_entry(cache: FileCache):
    for _ in range(3):
        cache.put(KEY, REPLY, REQUEST)
    assert [path for path in cache.root.rglob("*") if path.is_file()] == [path_of(cache)]


def changed(**fields: object) -> Callable[[bytes], bytes]:
    """An entry with other fields, whose hash is right all the same."""

    def change(data: bytes) -> bytes:
        entry = {**json.loads(data), **fields}
        del entry["digest"]
        return json.dumps({**entry, "digest": entries._digest(entry)}).encode()

    return change


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "another text": lambda data: data.replace(b"because", b"becausE"),
    "no JSON": lambda _: b"\xff\xfe not json",
    "deep JSON": lambda _: b"[" * 200_000,
    "a list": lambda _: b"[]",
    "an object": lambda _: b"{}",
    "no hash": lambda data: data.replace(b'"digest"', b'"digset"'),
    "not a number": lambda data: data.replace(b"0.25", b"NaN"),
    "another program's": changed(format="something"),
    "a later version's": changed(version=2),
    "under another's name": changed(key=OTHER),
    "no reply": changed(reply=None),
    "a reply without text": changed(reply={"usage": {}}),
    "a text that is none": changed(reply={"text": 1, "usage": {}}),
    "usage that is none": changed(reply={"text": "t", "usage": 1}),
    "a model that is none": changed(reply={"text": "t", "usage": {}, "model_id": 1}),
    "a cost that is none": changed(reply={"text": "t", "usage": {}, "cost_usd": True}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_a_miss_and_is_replaced(cache: FileCache, kind: str):
    cache.put(KEY, REPLY, REQUEST)
    path = path_of(cache)
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[kind](whole))
    assert path.read_bytes() != whole
    assert cache.get(KEY) is None
    cache.put(KEY, REPLY, REQUEST)
    assert cache.get(KEY) == REPLY


def test_every_flipped_bit_of_an_entry_is_a_miss_or_changes_nothing(cache: FileCache):
    cache.put(KEY, REPLY, REQUEST)
    whole = path_of(cache).read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        assert entries.read(KEY, bytes(damaged)) in (None, REPLY)


def test_a_pipe_or_a_folder_in_the_place_of_an_entry_is_a_miss(cache: FileCache):
    path = path_of(cache)
    path.parent.mkdir()
    os.mkfifo(path)
    assert cache.get(KEY) is None, "it doesn't wait for a writer"
    cache.put(KEY, REPLY, REQUEST)
    assert cache.get(KEY) == REPLY
    path_of(cache, OTHER).mkdir(parents=True)
    assert cache.get(OTHER) is None


def test_what_is_no_key_is_refused(cache: FileCache):
    with pytest.raises(UsageError, match="is no key"):
        cache.get("../" + "a" * 61)


WRITER = """
import sys
from dataclasses import replace
from cache_contract import KEY, LONG, REQUEST
from rlm_fsm import FileCache

cache = FileCache(sys.argv[1], max_bytes=10_000_000)
mine = replace(LONG, text=sys.argv[2] * 30_000)
for _ in range(60):
    cache.put(KEY, mine, REQUEST)
    found = cache.get(KEY)
    assert found is not None and len(found.text) == 30_000 and len(set(found.text)) == 1
"""


def test_processes_that_write_one_entry_see_whole_ones_only(tmp_path: Path):
    there = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "cache", letter], env=there)
        for letter in "abcd"
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(FileCache(tmp_path / "cache")) == 1


# -- bounds


def keys(count: int) -> list[str]:
    return [f"{number:064x}"[::-1] for number in range(1, count + 1)]


def fill(cache: FileCache, names: list[str], chars: int = 1_000) -> None:
    """Put entries whose ages are a minute apart, the first the oldest."""
    for number, name in enumerate(names):
        cache.put(name, CachedReply(text="x" * chars), REQUEST)
        used = 1_000_000_000 + 60 * number
        os.utime(path_of(cache, name), (used, used))


def test_a_full_folder_loses_what_was_unused_the_longest(tmp_path: Path):
    cache = FileCache(tmp_path / "cache", max_bytes=None)
    names = keys(20)
    fill(cache, names)
    assert cache.get(names[0]) is not None, "using an entry keeps it"
    size = cache.size_bytes()
    bounded = FileCache(cache.root, max_bytes=size // 2)
    bounded.put(OTHER, REPLY, REQUEST)
    assert bounded.size_bytes() <= size // 2
    assert bounded.get(names[0]) is not None
    assert bounded.get(OTHER) == REPLY
    assert bounded.get(names[1]) is None
    assert bounded.get(names[-1]) is not None


def test_a_folder_stays_within_its_bound_while_it_is_written(tmp_path: Path):
    cache = FileCache(tmp_path / "cache", max_bytes=40_000)
    for name in keys(120):
        cache.put(name, CachedReply(text="x" * 1_000), REQUEST)
        assert cache.size_bytes() <= 40_000 * 17 / 16 + 2_000
    assert len(cache) > 15


def test_pruning_by_age_and_clearing(cache: FileCache):
    names = keys(6)
    fill(cache, names)
    for name in names[:2]:
        os.utime(path_of(cache, name))
    assert cache.prune(max_age_s=3_600) == 4
    assert [cache.get(name) is not None for name in names] == [True] * 2 + [False] * 4
    assert cache.prune() == 0
    assert cache.clear() == 2
    assert len(cache) == 0


def test_what_a_killed_writer_left_behind_is_swept_and_foreign_files_are_not(cache: FileCache):
    cache.put(KEY, REPLY, REQUEST)
    left = path_of(cache).with_name(".1-2-abcd.tmp")
    fresh = path_of(cache).with_name(".3-4-abcd.tmp")
    foreign = cache.root / "notes.json"
    for path in (left, fresh, foreign):
        path.write_text("half")
    os.utime(left, (0, 0))
    os.utime(foreign, (0, 0))
    assert len(cache) == 1
    assert (left.exists(), fresh.exists(), foreign.exists()) == (False, True, True)
    cache.clear()
    assert foreign.exists()


# -- folders


def test_a_folder_that_cannot_be_is_refused_before_anything_is_started(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"nothing can be written to .*file.*Give a folder"):
        FileCache(tmp_path / "file")
    with pytest.raises(UsageError, match="nothing can be written"):
        FileCache(tmp_path / "file" / "below")
    with pytest.raises(UsageError, match="nothing can be written"):
        FileCache("/proc/nowhere")
    with pytest.raises(UsageError, match="give a folder"):
        FileCache("")


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "1"])
def test_a_bound_that_means_nothing_is_refused(tmp_path: Path, most: object):
    with pytest.raises(UsageError, match="max_bytes"):
        FileCache(tmp_path, max_bytes=most)  # type: ignore[arg-type]


def test_a_folder_of_the_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FileCache("~/kept").root == tmp_path / "kept"


# -- keys


MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]


def key(**changes: object) -> str:
    given = {"messages": MESSAGES, "max_tokens": 9, "temperature": 0.0, "sample": 0, **changes}
    identity = given.pop("identity", {"model": "m"})
    return key_of(identity, given.pop("messages"), **given)  # type: ignore[arg-type]


def test_a_key_covers_everything_that_decides_a_reply():
    other = [
        {"identity": {"model": "n"}},
        {"identity": {"model": "m", "url": "u"}},
        {"messages": MESSAGES[1:]},
        {"messages": MESSAGES[::-1]},
        {"messages": [MESSAGES[0], {"role": "user", "content": "why? "}]},
        {"messages": [MESSAGES[0], {"role": "user", "content": "\ud800"}]},
        {"max_tokens": 10},
        {"temperature": 0.5},
        {"sample": 1},
    ]
    made = [key(), *(key(**changes) for changes in other)]
    assert len(set(made)) == len(made)
    assert all(len(each) == 64 for each in made)
    assert key(temperature=0) == key(), "an equal number is the same parameter"


def test_keys_stay_what_they_are_from_version_to_version():
    assert key() == "6cdebbc8009ff572ed7fb6a679402b33780ab5c28f4088b3a03bda36f7b66081", (
        "see keys.VERSION"
    )


def openai(model: str = "m", **options: object) -> OpenAICompatAdapter:
    given = {"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-one", **options}
    return OpenAICompatAdapter(model, **given)  # type: ignore[arg-type]


def test_an_adapter_is_known_by_endpoint_model_and_parameters_and_not_by_its_key():
    base = identity_of(openai())
    same = [
        openai(api_key="sk-two"),
        openai(timeout=5.0, max_retries=0),
        openai(headers={"Authorization": "Bearer sk-three", "X-Api-Key": "sk-four"}),
        openai(base_url="http://127.0.0.1:1/v1?api-key=sk-five"),
        openai(base_url="http://user:sk-six@127.0.0.1:1/v1"),
    ]
    assert [identity_of(adapter) for adapter in same] == [base] * len(same)
    others = [
        openai("n"),
        openai(base_url="http://127.0.0.1:2/v1"),
        openai(base_url="http://127.0.0.1:1/v1?api-version=2"),
        openai(headers={"X-Provider": "another"}),
        openai(extra={"top_p": 0.5}),
        openai(extra={"top_p": 0.7}),
        FakeAdapter(model="m"),
    ]
    told = [json.dumps(identity_of(adapter)) for adapter in others]
    assert len({*told, json.dumps(base)}) == len(told) + 1


def test_no_secret_is_in_an_identity():
    adapter = openai(
        base_url="http://user:sk-six@127.0.0.1:1/v1?api-key=sk-five&v=1",
        headers={"X-Trace": "sk-four"},
        extra={"user": "sk-three"},
    )
    assert "sk-" not in json.dumps(identity_of(adapter))


def test_an_adapter_that_says_nothing_of_itself_has_no_identity():
    class Plain:
        pass

    class Named:
        model, url = "m", "http://there"

    class Telling:
        model = "m"

        @property
        def identity(self) -> dict[str, str]:
            return {"weights": "v7"}

    assert identity_of(Plain()) is None
    assert {**(identity_of(Named()) or {}), "kind": ""} == {
        "kind": "",
        "model": "m",
        "url": "http://there",
    }
    told = identity_of(Telling())
    assert told is not None
    assert (told["weights"], "model" in told) == ("v7", False)
