"""A second place for what the store holds, at an fsspec URL that several machines reach.

`TUNETRAIL_STORE_URL` names it (`s3://bucket/folder`, `gs://`, `file://`); without it there is none.
A file there has the name that it has in the home, a folder is one tar file: an object is whole or
not there, and whoever fetches one compares it with its digest before it is used.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

from sft_core.errors import ConfigError, StorageError

_KEY = "TUNETRAIL_STORE_URL"


def is_set() -> bool:
    """Whether there is a second place."""
    return _KEY in os.environ


def push(local: Path, name: str) -> None:
    """Put a file or folder there, under its name in the home, unless it is there already.

    Raises:
        ConfigError: the URL is of no known kind.
        StorageError: it cannot be written.
    """
    if not is_set():
        return
    files, target = _place(name, is_folder=local.is_dir())
    try:
        if files.exists(target):
            return
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        with files.transaction, files.open(target, "wb") as there:
            if not local.is_dir():
                with local.open("rb") as here:
                    shutil.copyfileobj(here, there)
                return
            with tempfile.TemporaryFile() as packed:
                with tarfile.open(fileobj=packed, mode="w") as tar:
                    tar.add(local, arcname=".")
                packed.seek(0)
                shutil.copyfileobj(packed, there)
    except OSError as error:
        raise StorageError(
            f"{_KEY}: {target} cannot be written ({type(error).__name__}). Check the URL, its "
            "credentials and its free space."
        ) from error


def pull(name: str, local: Path) -> bool:
    """Fetch what was put there under a name to a path, a folder where the name ends in `.dir`.

    False, and nothing is made, where there is none. It is not compared with any digest here.

    Raises:
        ConfigError: the URL is of no known kind.
        StorageError: it cannot be read.
    """
    if not is_set():
        return False
    files, source = _place(name, is_folder=name.endswith(".dir"))
    try:
        if not files.exists(source):
            return False
        with files.open(source, "rb") as there:
            _unpack(there, local, is_folder=name.endswith(".dir"))
    except (OSError, tarfile.TarError) as error:
        raise StorageError(
            f"{_KEY}: {source} cannot be fetched ({type(error).__name__}). Check the URL and its "
            "credentials; where the object is damaged, remove it."
        ) from error
    return True


def _unpack(there: IO[bytes], local: Path, *, is_folder: bool) -> None:
    if is_folder:
        with tarfile.open(fileobj=there, mode="r|") as tar:
            tar.extractall(local, filter="data")
    else:
        with local.open("wb") as here:
            shutil.copyfileobj(there, here)


def _place(name: str, *, is_folder: bool) -> tuple[Any, str]:
    """The file system, and the path of the object in it."""
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(os.environ[_KEY])
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"{_KEY}: {os.environ[_KEY]!r} is not understood: {error}. Name an fsspec URL, such as "
            "s3://bucket/folder, and install what reads it (s3fs, gcsfs, adlfs)."
        ) from error
    return files, f"{root.rstrip('/')}/{name}{'.tar' if is_folder else ''}"
