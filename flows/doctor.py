"""Examines the machine and the installation before a run pays for what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from data_checks.intake.reading import HUB_ID
from sft_core.base_model import resolve_base
from sft_core.config import PipelineConfig
from sft_core.errors import TuneTrailError
from sft_core.lineage.provenance import code_provenance
from sft_core.store import home

_MIN_FREE_BYTES = 2 * 1024**3


class Finding(NamedTuple):
    """One thing looked at."""

    what: str
    ok: bool
    found: str


def examine(config: PipelineConfig) -> list[Finding]:
    """Everything that a run of this config needs, without running anything."""
    return [
        Finding("python", sys.version_info >= (3, 11), sys.version.split()[0]),
        *_packages(),
        _home(),
        *(_source(source.path) for source in config.ingest.sources),
        _base(config),
        _code(),
    ]


def _packages() -> list[Finding]:
    """Installed versions against the project's own bounds; only what is off gets a line."""
    wrong = []
    for text in importlib.metadata.requires("tunetrail") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(Finding(requirement.name, False, f"missing, needed: {requirement}"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(Finding(requirement.name, False, f"{version}, needed: {requirement}"))
    return wrong or [Finding("packages", True, "all within bounds")]


def _home() -> Finding:
    folder = next(p for p in (home(), *home().parents) if p.exists())
    if not os.access(folder, os.W_OK):
        return Finding("home", False, f"{home()} cannot be written; set TUNETRAIL_HOME")
    free = shutil.disk_usage(folder).free
    return Finding("home", free >= _MIN_FREE_BYTES, f"{home()}, {free / 1024**3:.1f} GiB free")


def _source(path: str) -> Finding:
    if Path(path).exists():
        return Finding("source", True, path)
    if HUB_ID.fullmatch(path):
        return Finding("source", True, f"{path} is no local file; as a hub id it is not checked")
    return Finding("source", False, f"{path} is not here")


def _base(config: PipelineConfig) -> Finding:
    try:
        folder, ref = resolve_base(config.model)
    except TuneTrailError as error:
        return Finding("base model", False, str(error))
    return Finding("base model", True, f"{folder}, SHA-256 {ref.sha256[:12]}")


def _code() -> Finding:
    code = code_provenance()
    changed = ", with uncommitted changes" if code["changes_sha256"] else ""
    return Finding("code", True, f"commit {code['commit'][:12]}{changed}")
