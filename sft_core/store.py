"""The home folder and the content-addressed store in it.

Everything that passes between stages is a file named by its SHA-256, written under a temporary
name, flushed to disk and renamed: a name that exists is whole, and equal digests mean equal
content. A data set is canonical JSON lines, so `sha256sum` of the file is the data set's digest.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from sft_core.environment import home as home
from sft_core.errors import IntegrityError, StorageError
from sft_core.records import Record, sha256_json
from sft_core.remote_store import is_set, pull, push
from sft_core.reports import DatasetRef, FileRef, ModelRef

Ref = FileRef | DatasetRef | ModelRef
_CHUNK_BYTES = 1 << 20
_UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
)


def make_home() -> Path:
    """The home, made where it is missing, open to its owner alone.

    Raises:
        StorageError: it cannot be made.
    """
    folder = home()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Turn a full disk or a read-only home into one clear error.

    Raises:
        StorageError: the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise StorageError(
            f"{what}: cannot be written: {error.strerror}. Nothing was changed; free space, make "
            "it writable, or set TUNETRAIL_HOME to another folder."
        ) from error


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: Path) -> str:
    """SHA-256 over the sorted relative names and digests of all files of a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return sha256_json([[p.relative_to(folder).as_posix(), sha256_file(p)] for p in files])


@contextmanager
def _temporary(area: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A file that only the owner reads; removed unless it was renamed."""
    with writing(area):
        area.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=area, prefix=".writing-")
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)


class Incoming(io.RawIOBase):
    """A file on its way into the store; `ref` is there once its block has ended."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0
        self.ref = FileRef(path="", sha256="")

    def writable(self) -> bool:
        """Yes; it can be neither read nor sought."""
        return True

    def write(self, chunk: Any) -> int:
        """Add bytes at the end."""
        self._digest.update(chunk)
        self._size += self._file.write(chunk)
        return len(chunk)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._size

    def hexdigest(self) -> str:
        """SHA-256 of what was written so far."""
        return self._digest.hexdigest()


@contextmanager
def incoming(suffix: str, area: str = "store") -> Iterator[Incoming]:
    """A file to write piece by piece; it gets its name when the block ends without an error."""
    folder = home() / area
    with _temporary(folder) as (file, path):
        sink = Incoming(file)
        yield sink
        file.flush()
        os.fsync(file.fileno())
        name = sink.hexdigest()
        os.replace(path, folder / f"{name}{suffix}")
        sink.ref = FileRef(path=f"{area}/{name}{suffix}", sha256=name)
    if area == "store":
        push(folder / f"{name}{suffix}", sink.ref.path)


def put_bytes(data: bytes, suffix: str) -> FileRef:
    """Store a small file; `suffix` (`.png`) tells readers what it is."""
    with incoming(suffix) as sink:
        sink.write(data)
    return sink.ref


def put_file(source: Path) -> FileRef:
    """Store a copy of a file under its digest."""
    with source.open("rb") as file, incoming(source.suffix) as sink:
        shutil.copyfileobj(file, sink, _CHUNK_BYTES)
    return sink.ref


class RecordFile:
    """Records on their way into a file of canonical JSON lines."""

    def __init__(self, sink: Incoming) -> None:
        self._sink = sink
        self.num_rows = 0

    def add(self, record: Record) -> None:
        """Write one record; memory stays flat."""
        self._sink.write(record.to_json() + b"\n")
        self.num_rows += 1

    @property
    def ref(self) -> DatasetRef:
        """The data set, once the block has ended."""
        return DatasetRef(**self._sink.ref.model_dump(), num_rows=self.num_rows)


@contextmanager
def record_file(area: Literal["store", "quarantine"] = "store") -> Iterator[RecordFile]:
    """Records to store one at a time; raw text of rejected rows belongs to `quarantine`."""
    with incoming(".jsonl", area) as sink:
        yield RecordFile(sink)


def put_tree(folder: Path, base: str | None = None) -> ModelRef:
    """Store a copy of a folder, such as an adapter, under the digest of its files."""
    sha256 = sha256_tree(folder)
    area = home() / "store"
    target = area / f"{sha256}.dir"
    if not target.exists() or sha256_tree(target) != sha256:
        with writing(area):
            area.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(dir=area, prefix=".writing-"))
            try:
                shutil.copytree(folder, part / "tree")
                if target.exists():  # damaged: put the whole one in its place
                    os.replace(target, part / "damaged")
                os.replace(part / "tree", target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    push(target, f"store/{target.name}")
    return ModelRef(path=f"store/{sha256}.dir", sha256=sha256, base=base)


def is_stored(ref: Ref) -> bool:
    """Whether the content lies under the home; a base model, which has no base, does not."""
    return not (isinstance(ref, ModelRef) and ref.base is None)


def locate(ref: Ref) -> Path:
    """Where the content lies; what another machine made is fetched from `TUNETRAIL_STORE_URL`.

    Raises:
        IntegrityError: what was fetched differs from its digest.
    """
    if not is_stored(ref):
        return Path(ref.path)
    path = home() / ref.path
    if is_set() and not path.exists():
        _fetch(ref, path)
    return path


def _fetch(ref: Ref, path: Path) -> None:
    """Into the home, under its name once its digest is right; nothing where there is none."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as temporary:
            part = Path(temporary) / path.name
            if not pull(ref.path, part):
                return
            found = sha256_tree(part) if part.is_dir() else sha256_file(part)
            if found != ref.sha256:
                raise IntegrityError(
                    f"{ref.path}: what TUNETRAIL_STORE_URL holds has SHA-256 {found}, expected "
                    f"{ref.sha256}. Remove it there, and run the stage that made it again."
                )
            try:
                os.rename(part, path)
            except OSError:
                if not path.exists():  # another process has fetched the same folder
                    raise


def read_records(ref: DatasetRef) -> Iterator[Record]:
    """The rows of a data set, one at a time."""
    with locate(ref).open("rb") as file:
        for line in file:
            yield Record.from_json(line)


def count_rows(ref: DatasetRef) -> int:
    """Lines that lie there now."""
    with locate(ref).open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))


def digest_of(ref: Ref) -> str | None:
    """Digest of what lies there now; None where there is nothing."""
    path = locate(ref)
    if path.is_dir():
        return sha256_tree(path)
    return sha256_file(path) if path.is_file() else None


def check(ref: Ref) -> None:
    """Compare content with its digest.

    Raises:
        IntegrityError: the content is gone or differs; the message says which.
    """
    found = digest_of(ref)
    if found is None:
        raise IntegrityError(f"{ref.path}: missing, expected content with SHA-256 {ref.sha256}.")
    if found != ref.sha256:
        raise IntegrityError(f"{ref.path}: SHA-256 is {found}, expected {ref.sha256}.")
