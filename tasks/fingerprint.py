"""What a stage's result depends on: its inputs by content, and the code that does the work."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sft_core.config import Section
from sft_core.records import sha256_json
from sft_core.store import sha256_file, sha256_tree

_ROOT = Path(__file__).parents[1]
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
    "tasks.tracking_process",
)
_MODULE = re.compile(rf"({'|'.join(_HOUSE)})(\.\w+)+")
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
        elif found := _read(name):
            parts[name], imports = found
            todo += imports
    return sha256_json(sorted(parts.items()))


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]] | None:
    """Digest of a module with the data files that it names, and what it imports.

    None for a name that is no module but stands in one: the module itself is listed as well.
    """
    path = _source(module)
    if path is None:
        return None
    source = path.read_bytes()
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    files = [f for f in _data_files(module.split(".")[0]) if f.name in texts]
    digest = sha256_json([hashlib.sha256(source).hexdigest(), *map(sha256_file, files)])
    return digest, tuple(_imports(nodes))


def _source(module: str) -> Path | None:
    """File of a module of the house; found by name, because to ask Python would import parents."""
    path = _ROOT.joinpath(*module.split("."))
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def _data_files(package: str) -> tuple[Path, ...]:
    files = sorted((_ROOT / package).rglob("*.*"))
    return tuple(p for p in files if p.suffix not in (".py", ".pyc"))


@cache
def _distributions() -> Mapping[str, list[importlib.metadata.Distribution]]:
    """By top-level module, what `importlib.metadata.packages_distributions` finds in a second."""
    found = defaultdict(list)
    for distribution in importlib.metadata.distributions():
        modules = set((distribution.read_text("top_level.txt") or "").split())
        for line in () if modules else (distribution.read_text("RECORD") or "").splitlines():
            path = line.split(",")[0]
            if path.endswith(".py"):
                modules.add(path.removesuffix(".py").split("/")[0])
        for module in modules:
            found[module].append(distribution)
    return found


@cache
def _version(module: str) -> str:
    """Versions of the distributions that a module belongs to; empty for the standard library."""
    named = {(found.name, found.version) for found in _distributions().get(module, ())}
    return " ".join(f"{name} {version}" for name, version in sorted(named))


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _MODULE.fullmatch(node.value):
                yield node.value  # a process that runs it is started by its name
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
