"""What a stage's result depends on: its inputs by content, and the code that does the work."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sft_core.config import Section
from sft_core.records import sha256_json
from sft_core.store import sha256_file, sha256_tree

_HOUSE = ("tasks", "data_checks", "sft_core")
# What these hold is in the cache key by value, or has no part in a result.
_CONTRACTS = (
    "sft_core.config",
    "sft_core.environment",
    "sft_core.errors",
    "sft_core.reports",
    "tasks",
    "tasks.fingerprint",
    "tasks.stage",
    "tasks.tracking",
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def source_digest(module: str) -> str:
    """SHA-256 over everything that the work of a module depends on.

    That is its source and the source of all modules of the house that it imports, at the top or
    inside a function, the data files that they name, and the versions of the libraries that they
    import. Prefect's own TASK_SOURCE sees the function's body alone.
    """
    parts: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        top = name.split(".")[0]
        if name in parts or name in _CONTRACTS:
            continue
        if top not in _HOUSE:
            parts[top] = _version(top)
            continue
        path = _source(name)
        if path is None:  # a function or class of a module that is listed itself
            continue
        source = path.read_bytes()
        parts[name] = hashlib.sha256(source).hexdigest()
        tree = ast.parse(source)
        todo += _imports(tree)
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        for file in _data_files(top):
            if file.name in texts:
                parts[f"{top}/{file.name}"] = sha256_file(file)
    return sha256_json(sorted(parts.items()))


@cache
def _source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _data_files(package: str) -> tuple[Path, ...]:
    root = Path(str(_source(package))).parent
    return tuple(p for p in sorted(root.rglob("*.*")) if p.suffix not in (".py", ".pyc"))


@cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def content_of(value: Any) -> Any:
    """A value as its content: config sections with the digests of the files that they name."""
    if isinstance(value, Section):
        return [value.model_dump(mode="json"), [_file_content(*f) for f in value.input_files()]]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: content_of(item) for key, item in value.items()}
    return value


def _file_content(name: str, revision: str | None) -> str:
    path = Path(name)
    if path.is_dir():
        return sha256_tree(path)
    if path.is_file():
        return sha256_file(path)
    pinned = revision is not None and _COMMIT.fullmatch(revision)
    # A branch of a hub id can change at any time, so what it named is never reused.
    return f"{name}@{revision if pinned else uuid.uuid4()}"
