"""MLflow held against the chain: what the window shows is what the witness has seen.

Reads MLflow alone and writes nothing. It says nothing about what only MLflow knows, such as times.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from sft_core.errors import IntegrityError
from sft_core.lineage.chain import Entry, head_size, read_chain, read_head
from sft_core.lineage.signing import public_key
from sft_core.lineage.tracing import sealed_runs
from sft_core.reports import RunRecord, StageReport
from sft_core.store import home, sha256_tree
from tasks.registration import CANDIDATE, version_tags
from tasks.tracking import artifacts_of, params_of

_UNMOVED = "no statement of the chain has moved it there"


def compare_with_mlflow(run_id: str | None, key: Path | None) -> Iterator[str]:
    """Yields a line for each run whose copy in MLflow is the sealed one, and for the registry.

    Args:
        run_id: one run; None for all.
        key: public key that the chain begins with; None for the home's own.

    Raises:
        IntegrityError: the first difference: place, expected, found.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None and not (home() / "mlflow.db").exists():
        yield "MLflow: has no database here, NOT COMPARED"
        return
    client = MlflowClient(uri or f"sqlite:///{home()}/mlflow.db")
    chain = read_chain(public_key(key))
    records = list(reversed(sealed_runs()))
    names = {record.config["name"] for record in records}
    yield from _compare_heads(client, names, chain)
    for record in records:
        if run_id in (None, record.run_id):
            yield from _compare_run(client, record, chain)
    for name in sorted(names):
        yield from _compare_registry(client, name, records)


def _compare_run(client: MlflowClient, record: RunRecord, chain: list[Entry]) -> Iterator[str]:
    place = f"MLflow run {record.run_id}"
    run = client.get_run(record.run_id)
    ended_well = run.info.status == "FINISHED"  # what goes wrong after the seal is a failure too
    tags = {"flow": record.flow, "verdict": record.verdict if ended_well else "fail"}
    for name, value in tags.items():
        _expect(f"{place}: tag tunetrail.{name}", value, run.data.tags.get(f"tunetrail.{name}"))
    _expect_all(f"{place}: param", params_of(record.config), run.data.params)
    metrics = {f"{r.stage}/{name}": v for r in record.reports for name, v in r.metrics.items()}
    _expect_all(f"{place}: metric", metrics, run.data.metrics)
    stages = _stages(client, run)
    for report in record.reports:
        _expect(f"{place}: a run of stage {report.stage}", True, report.stage in stages)
        _compare_stage(client, f"{place}, stage {report.stage}", report, stages[report.stage])
    entry = next(e for e in reversed(chain) if e.predicate.get("run_id") == record.run_id)
    published = {Path(s["name"]).name: s["digest"]["sha256"] for s in entry.statement["subject"]}
    with _artifacts(client, record.run_id, "record") as copied:
        for name, sha256 in published.items():
            _expect(f"{place}: artifact record/{name}", sha256, _sha256(copied.get(name)))
    yield f"{place}: params, {len(metrics)} metrics, tags and artifacts are the sealed ones"


def _compare_stage(client: MlflowClient, place: str, report: StageReport, run: Run) -> None:
    gates = {f"gate.{gate.metric}": gate.verdict for gate in report.gates}
    tags = {"tunetrail.report_sha256": report.sha256} | gates
    _expect_all(f"{place}: tag", tags, run.data.tags)
    _expect_all(f"{place}: metric", report.metrics, run.data.metrics)
    with _artifacts(client, run.info.run_id) as copied:
        for name, content in artifacts_of(report):
            expected = hashlib.sha256(content).hexdigest()
            _expect(f"{place}: artifact {name}", expected, _sha256(copied.get(name)))


def _compare_heads(client: MlflowClient, names: set[str], chain: list[Entry]) -> Iterator[str]:
    """Every head that a run has kept there names statements that the chain has as well."""
    found = filter(None, map(client.get_experiment_by_name, sorted(names)))
    runs = client.search_runs([e.experiment_id for e in found], "tags.`tunetrail.flow` != ''")
    num_heads = 0
    for run in reversed(runs):
        with _artifacts(client, run.info.run_id, "record") as copied:
            for name in sorted(each for each in copied if each.startswith("head-")):
                where = f"MLflow run {run.info.run_id}: artifact record/{name}"
                _compare_head(where, copied[name].read_bytes(), chain)
                num_heads += 1
    yield f"MLflow: {num_heads} heads of the chain, kept there, are in it"


def _compare_head(where: str, data: bytes, chain: list[Entry]) -> None:
    size = head_size(data)
    if not 0 < size <= len(chain):
        raise IntegrityError(
            f"{where}: signed for {size} statements, the chain has {len(chain)}. An old state of "
            "it was put back, or its tail is lost."
        )
    head = read_head(data, where, chain[size - 1].key)
    _expect(f"{where}: root", chain[size - 1].root, head.root)


def _compare_registry(client: MlflowClient, name: str, records: list[RunRecord]) -> Iterator[str]:
    sealed = {
        str(version): record
        for record in records
        if record.config["name"] == name and (report := record.report("register"))
        for _, version, _ in report.tables["versions"].rows
    }
    found = {
        str(version.version): version
        for version in client.search_model_versions(f"name = '{name}'")
    }
    place = f"MLflow model {name}"
    _expect(f"{place}: versions", sorted(sealed, key=int), sorted(found, key=int))
    for number, record in sealed.items():
        _compare_version(f"{place} version {number}", record, found[number])
    if not sealed:
        return
    passed = [number for number, record in sealed.items() if record.verdict == "pass"]
    expected = {CANDIDATE: passed[-1]} if passed else {}
    aliases = {a: str(v) for a, v in client.get_registered_model(name).aliases.items()}
    for alias, number in aliases.items():
        if expected.get(alias) != number:
            raise IntegrityError(
                f"{place}: alias {alias} points to version {number}, expected "
                f"{expected.get(alias, 'none')}: {_UNMOVED}."
            )
    _expect(f"{place}: aliases", expected, aliases)
    yield f"{place}: {len(sealed)} versions, their tags, adapters and aliases are the sealed ones"


def _compare_version(place: str, record: RunRecord, found: ModelVersion) -> None:
    tags = version_tags(record)
    _expect_all(f"{place}: tag", tags, found.tags)
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(download_artifacts(artifact_uri=found.source, dst_path=folder))
        _expect(f"{place}: adapter", tags["adapter_sha256"], sha256_tree(adapter))


def _stages(client: MlflowClient, parent: Run) -> dict[str, Run]:
    """The stages that were logged; one that was killed, and begun again, is left out."""
    found = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    logged = (run for run in found if "tunetrail.report_sha256" in run.data.tags)
    return {run.data.tags["tunetrail.stage"]: run for run in logged if run.info.status != "KILLED"}


@contextmanager
def _artifacts(client: MlflowClient, run_id: str, folder: str = "") -> Iterator[dict[str, Path]]:
    """Copies of a run's files by name, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as target:
        with suppress(MlflowException, OSError):  # it has none
            client.download_artifacts(run_id, folder, target)
        files = (path for path in Path(target, folder).rglob("*") if path.is_file())
        yield {path.name: path for path in files}


def _sha256(path: Path | None) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else "missing"


def _expect_all(place: str, expected: dict[str, Any], found: dict[str, Any]) -> None:
    for name, value in expected.items():
        _expect(f"{place} {name}", value, found.get(name))


def _expect(place: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise IntegrityError(f"{place}: is {found!r}, expected {expected!r}.")
