"""What one home stores another one reads, through the URL that both reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from sft_core.errors import ConfigError, IntegrityError, StorageError
from sft_core.records import Message, Record
from sft_core.store import (
    check,
    incoming,
    locate,
    put_bytes,
    put_tree,
    read_records,
    record_file,
)

RECORD = Record(
    1, "a" * 64, [Message(role="user", content="q"), Message(role="assistant", content="a")]
)
Move = Callable[[str], Path]


@pytest.fixture(params=["file", "memory"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    url = f"file://{tmp_path}/shared" if request.param == "file" else "memory://shared"
    monkeypatch.setenv("TUNETRAIL_STORE_URL", url)
    yield url
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """To another machine: a home of its own."""

    def to(name: str) -> Path:
        monkeypatch.setenv("TUNETRAIL_HOME", str(tmp_path / name))
        return tmp_path / name

    to("a")
    return to


def objects(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return sorted(path.rpartition("/")[2] for path in files.find(root))


def tree(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter.bin").write_bytes(b"weights")
    (folder / "sub" / "config.json").write_text("{}")
    return folder


def test_another_home_reads_what_the_first_one_stored(url: str, move: Move, tmp_path: Path) -> None:
    with record_file() as rows:
        rows.add(RECORD)
    picture = put_bytes(b"png", ".png")
    adapter = put_tree(tree(tmp_path / "made"), base="b" * 64)
    there = move("b")
    assert [r.messages for r in read_records(rows.ref)] == [RECORD.messages]
    assert locate(picture).read_bytes() == b"png"
    check(adapter)
    assert (locate(adapter) / "sub" / "config.json").read_text() == "{}"
    for ref in (rows.ref, picture, adapter):
        assert locate(ref).is_relative_to(there)
    left = [p.name for p in (there / "store").iterdir() if p.name.startswith(".")]
    assert left == []
    fsspec.core.url_to_fs(url)[0].rm(fsspec.core.url_to_fs(url)[1], recursive=True)
    check(adapter)  # the home is a cache: nothing is asked for twice


def test_nothing_half_written_is_there_and_nothing_is_written_twice(url: str, move: Move) -> None:
    def break_off() -> None:
        with incoming(".txt") as sink:
            sink.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert objects(url) == []
    put_bytes(b"x", ".txt")
    files, root = fsspec.core.url_to_fs(url)
    (path,) = files.find(root)
    files.pipe_file(path, b"kept")
    move("b")
    put_bytes(b"x", ".txt")
    assert files.cat_file(path) == b"kept"


def test_raw_text_of_rejected_rows_stays_on_its_machine(url: str, move: Move) -> None:
    with record_file("quarantine") as rows:
        rows.add(RECORD)
    assert objects(url) == []
    move("b")
    with pytest.raises(IntegrityError, match="missing"):
        check(rows.ref)


def test_what_is_damaged_there_never_gets_its_name(url: str, move: Move, tmp_path: Path) -> None:
    picture = put_bytes(b"png", ".png")
    adapter = put_tree(tree(tmp_path / "made"), base="b" * 64)
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/{picture.path}", b"other")
    there = move("b")
    with pytest.raises(IntegrityError, match=r"holds has SHA-256 .*Remove it there"):
        check(picture)
    files.pipe_file(f"{root}/{adapter.path}.tar", b"no tar at all")
    with pytest.raises(StorageError, match="cannot be fetched"):
        check(adapter)
    assert list((there / "store").iterdir()) == []


def test_a_url_that_is_not_understood(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNETRAIL_STORE_URL", "nowhere://bucket")
    with pytest.raises(ConfigError, match=r"TUNETRAIL_STORE_URL: 'nowhere://bucket'"):
        put_bytes(b"x", ".txt")
