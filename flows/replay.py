"""Runs a sealed run again and says whether it comes out the same, or where it first differs.

The repetition has a home of its own, so that nothing is taken from a cache or a checkpoint, and
registry, chain and MLflow are left as they are. Only the key behind pseudonyms is shared: it is an
input. What is written about a run (cards, statements, version number) follows from the rest and
bears its id; `tunetrail verify` checks that, and it is not compared.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sft_core.errors import ConfigError, DataError, IntegrityError, TuneTrailError
from sft_core.lineage.tracing import sealed_run
from sft_core.reports import RunRecord, StageReport
from sft_core.store import home, make_home, writing

_UNFIT = (TuneTrailError.exit_code, ConfigError.exit_code, DataError.exit_code)
"""A run that ends like this has no result to compare."""
_ABOUT_THE_RUN = {"plan", "data_card", "page", "model_card", "exports", "register"}


def replay(run_id: str) -> str:
    """Repeat a sealed run from its config; returns a line that says how much was the same.

    It is repeated by the code, the environment and the input files that are here now.

    Raises:
        IntegrityError: there is no such sealed run, its record was changed, or it came out
            otherwise. The message names the first stage and figure or file that differs.
        TuneTrailError: it could not be repeated, such as for a data file that is gone.
    """
    sealed = sealed_run(run_id)
    if sealed is None:
        raise IntegrityError(f"replay: no sealed run {run_id} is in the chain.")
    again = _repeat(sealed)
    num_compared = 0
    for place, expected, found in _figures(sealed, again):
        if expected != found:
            raise IntegrityError(
                f"replay: {place} is {_shown(found)}, the sealed run {run_id} has "
                f"{_shown(expected)}. Code, packages, input files or machine are not the same."
            )
        num_compared += 1
    return f"same: {len(sealed.reports)} stages, {num_compared:,} figures and files"


def _repeat(sealed: RunRecord) -> RunRecord:
    """The record of the same flow and config, run by a new process in a new home."""
    verb = {"sft": "run", "audit": "audit"}[sealed.flow]
    with writing(home()), tempfile.TemporaryDirectory(dir=make_home(), prefix="replay-") as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(sealed.config), encoding="utf-8")
        (Path(folder) / "keys").mkdir(mode=0o700)
        shutil.copy(home() / "keys" / "pseudonym.key", Path(folder) / "keys")
        # Else it would write to the tracking server, and take results from Prefect's storage.
        named = ("MLFLOW_TRACKING_URI", "PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH")
        environment = {key: value for key, value in os.environ.items() if key not in named}
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", verb, str(config), "--json"],
            env=environment | {"TUNETRAIL_HOME": folder},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    lost = TuneTrailError(
        f"replay: run {sealed.run_id} could not be repeated; why stands above (exit code "
        f"{done.returncode})."
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
        found.pop("verdict")
        again = RunRecord.model_validate(found)
    except (ValueError, KeyError) as error:
        raise lost from error
    if done.returncode in _UNFIT and again.problem != sealed.problem:
        raise lost
    return again


Figure = tuple[str, Any, Any]
"""Place, what was sealed, what was found."""


def _figures(sealed: RunRecord, again: RunRecord) -> Iterator[Figure]:
    """Everything that must repeat, in the order of the stages."""
    found = {report.stage: report for report in again.reports}
    for report in sealed.reports:
        if report.stage not in found:
            yield f"{report.stage}: the stage", "run", "not run"
        elif report.stage not in _ABOUT_THE_RUN:
            yield from _of_stage(report, found[report.stage])
    yield "the run: its stages", [r.stage for r in sealed.reports], list(found)
    yield "the run: its outcome", sealed.outcome, again.outcome
    yield "the run: its verdict", sealed.verdict, again.verdict


def _of_stage(sealed: StageReport, again: StageReport) -> Iterator[Figure]:
    """Metrics first: where a file differs as well, they tell more."""
    expected, found = (report.model_dump(mode="json") for report in (sealed, again))
    kinds = ("metrics", "not_measured", "series", "datasets", "models", "files", "private")
    for kind in (*kinds, "tables", "figures"):
        for name in sorted(expected[kind].keys() | found[kind].keys()):
            one, other = expected[kind].get(name), found[kind].get(name)
            place = f"{sealed.stage}: {kind} {name}"
            if kind == "series" and one and other:
                yield from _of_curve(place, one, other)
            yield place, one, other
    yield f"{sealed.stage}: its gates", expected["gates"], found["gates"]


def _of_curve(place: str, sealed: list[Any], again: list[Any]) -> Iterator[Figure]:
    for one, other in zip(sealed, again, strict=False):
        if one != other:
            yield f"{place} at step {one[0]}", one[1], other[1]


def _shown(value: Any) -> str:
    """A figure, or the digest of a file; nothing that could quote a row."""
    if isinstance(value, dict) and "sha256" in value:
        return f"SHA-256 {value['sha256']}"
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return "missing" if value is None else repr(value)
