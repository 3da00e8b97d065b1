"""MLflow as the window: one parent run a pipeline run, one child a stage, cached or not.

The only module that writes to MLflow, in a process of its own (`tasks.tracking_process`). It speaks
to the client with explicit run ids, because the active run is thread-local. A run that SIGKILL left
RUNNING is gone on with by the next run of the same config.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException

from sft_core.config import PipelineConfig
from sft_core.reports import DatasetRef, RunRecord, StageReport
from sft_core.store import home, locate, make_home, writing

_MAX_METRICS_A_BATCH = 1_000
_MAX_PARAM_CHARS = 6_000
_DIGEST_CHARS = 36  # width of MLflow's digest column; the whole SHA-256 stands in the profile
_STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

for _name in ("alembic", "mlflow.store.model_registry"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# It prints a traceback with the values of the failed statement before it raises the same error.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class LoggedStage:
    """A stage that a run had finished and logged before it was killed."""

    run_id: str
    status: str
    cache_key: str
    report_sha256: str
    cached: bool


class Tracker:
    """Writes runs, reports and model versions.

    Uses `MLFLOW_TRACKING_URI` where it is set, else a SQLite file and a folder under the home. The
    database is migrated here, once and under a lock: several processes on a fresh file crash.
    """

    def __init__(self) -> None:
        folder = make_home()
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"
        with writing(folder), FileLock(folder / "mlflow.lock"):
            # Else MLflow makes a folder mlruns in the working directory.
            os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = _artifact_root()
            self.client = MlflowClient(self.uri)
            self.client.search_experiments(max_results=1)
        self._logged: dict[str, LoggedStage] = {}
        self._lock: FileLock | None = None
        self._run = ""
        self._stage: tuple[str, str] | None = None

    def open(self, flow: str, config: PipelineConfig, flow_run_id: str, name: str) -> str:
        """Start the parent run with the config as its params; returns its id.

        A run of the same flow and config that was killed is gone on with instead. Whether its
        process lives is told by a lock that the kernel drops with the process: a run without one
        in this home was started elsewhere, and is left alone.
        """
        run_id = self._adopt(flow, config)
        if run_id is None:
            run_id = self._create(flow, config, name)
        self._run = run_id
        self.client.set_tag(run_id, "prefect.flow_run_id", flow_run_id)
        params = [Param(*each) for each in params_of(config.model_dump(mode="json")).items()]
        try:
            for start in range(0, len(params), 100):
                self.client.log_batch(run_id, params=params[start : start + 100])
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        return run_id

    def _create(self, flow: str, config: PipelineConfig, name: str) -> str:
        lock = uuid.uuid4().hex
        self._lock = _run_lock(lock)
        self._lock.acquire()  # before the run is there: no moment to be killed without it
        run = self.client.create_run(
            self._experiment(config.name),
            run_name=name,
            tags={
                "tunetrail.flow": flow,
                "tunetrail.config_sha256": config.sha256,
                "tunetrail.policy_sha256": config.policy.sha256,
                "tunetrail.lock": lock,
            },
        )
        run_id: str = run.info.run_id
        return run_id

    def _adopt(self, flow: str, config: PipelineConfig) -> str | None:
        """The newest run of the same that was killed, locked for this process."""
        killed = self.client.search_runs(
            [self._experiment(config.name)],
            f"attributes.status = 'RUNNING' and tags.`tunetrail.flow` = '{flow}' "
            f"and tags.`tunetrail.config_sha256` = '{config.sha256}'",
        )
        for run in killed:
            lock = _run_lock(run.data.tags.get("tunetrail.lock", ""))
            if not Path(lock.lock_file).exists():
                continue
            try:
                lock.acquire()
            except Timeout:
                continue
            run_id: str = run.info.run_id
            if self.client.get_run(run_id).info.status != "RUNNING":  # it ended meanwhile
                lock.release()
                continue
            self._lock = lock
            self._close_stages(run)
            times = int(run.data.tags.get("tunetrail.times_resumed", "0")) + 1
            self.client.set_tag(run_id, "tunetrail.times_resumed", str(times))
            return run_id
        return None

    def _close_stages(self, parent: Run) -> None:
        """Mark the stage that was killed; remember those that were logged before."""
        stages = self.client.search_runs(
            [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        )
        for run in stages:
            tags, status = run.data.tags, run.info.status
            if status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")
            elif "tunetrail.report_sha256" in tags and status != "KILLED":
                self._logged[tags["tunetrail.stage"]] = LoggedStage(
                    run.info.run_id,
                    status,
                    tags["tunetrail.cache_key"],
                    tags["tunetrail.report_sha256"],
                    tags["tunetrail.cached"] == "true",
                )

    def _experiment(self, name: str) -> str:
        with FileLock(home() / "mlflow.lock"):
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                experiment_id: str = found.experiment_id
                return experiment_id
            location = None
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                location = f"{_artifact_root()}/{name}"
            created: str = self.client.create_experiment(
                name,
                artifact_location=location,
                # Opens the list of runs in the UI instead of the view for agents.
                tags={"mlflow.experimentKind": "custom_model_development"},
            )
            return created

    def logged_before(self) -> dict[str, tuple[str, str, bool]]:
        """Cache key, report's digest and whether it came from the cache, of the stages that the
        run had logged before it was killed."""
        return {
            stage: (each.cache_key, each.report_sha256, each.cached)
            for stage, each in self._logged.items()
        }

    def begin_stage(self, name: str, cache_key: str) -> None:
        """Open a stage's run; where the run was killed after it had logged this stage with the same
        inputs, it is the run of that time."""
        earlier = self._logged.get(name)
        if earlier is not None and earlier.cache_key == cache_key:
            self._stage = (earlier.run_id, earlier.status)
        else:
            self._stage = (self._create_stage(name, cache_key), "RUNNING")

    def _create_stage(self, name: str, cache_key: str) -> str:
        tags = {
            "mlflow.parentRunId": self._run,
            "tunetrail.stage": name,
            "tunetrail.cache_key": cache_key,
        }
        experiment = self.client.get_run(self._run).info.experiment_id
        run_id: str = self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        return run_id

    def end_stage(self, status: str) -> None:
        """Close the stage's run with its true status; nothing where none could be opened."""
        if self._stage is not None:
            run_id, before = self._stage
            self._stage = None
            if status != before:
                self.client.set_terminated(run_id, status)

    def log_stage(self, report: StageReport, cached: bool, timings: Mapping[str, float]) -> None:
        """Write a report to its stage's run; metrics and data sets also to the parent.

        Nothing where the stage's run could not be opened, which was an error by then. `timings` are
        durations and rates: facts of this run, which no report holds.
        """
        if self._stage is None:
            return
        child, _ = self._stage
        earlier = self._logged.get(report.stage)
        if earlier and (earlier.run_id, earlier.report_sha256) == (child, report.sha256):
            return
        now = int(time.time() * 1_000)
        scalars = [Metric(key, value, now, 0) for key, value in report.metrics.items()]
        curves = [
            Metric(key, value, now, step)
            for key, points in report.series.items()
            for step, value in points
        ]
        measured = [Metric(key, value, now, 0) for key, value in timings.items()]
        tags = [
            RunTag("tunetrail.cached", str(cached).lower()),
            RunTag("tunetrail.report_sha256", report.sha256),
            *(RunTag(f"gate.{gate.metric}", gate.verdict) for gate in report.gates),
        ]
        self.client.log_batch(child, tags=tags)
        own = scalars + curves + measured
        for start in range(0, len(own), _MAX_METRICS_A_BATCH):
            self.client.log_batch(child, metrics=own[start : start + _MAX_METRICS_A_BATCH])
        prefixed = [Metric(f"{report.stage}/{m.key}", m.value, now, 0) for m in scalars]
        self.client.log_batch(self._run, metrics=prefixed)
        inputs = [_dataset_input(report.stage, key, ref) for key, ref in report.datasets.items()]
        if inputs:
            self.client.log_inputs(child, datasets=inputs)
            self.client.log_inputs(self._run, datasets=inputs)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in artifacts_of(report):
                (Path(folder) / name).write_bytes(content)
            self.client.log_artifacts(child, folder)

    def log_files(self, files: Mapping[str, Path], folder: str) -> None:
        """Put files under a folder of the run's artifacts, by the given names."""
        with tempfile.TemporaryDirectory() as temporary:
            for name, path in files.items():
                (Path(temporary) / name).write_bytes(path.read_bytes())
            self.client.log_artifacts(self._run, temporary, folder)

    def close(self, outcome: str, note: str, tags: Mapping[str, str]) -> None:
        """End the parent run with its true status; the note is what the UI shows first.

        Nothing where none could be opened.
        """
        if not self._run:
            return
        self.client.set_tag(self._run, "mlflow.note.content", note)
        for key, value in tags.items():
            self.client.set_tag(self._run, f"tunetrail.{key}", value)
        self.client.set_terminated(self._run, _STATUS[outcome])
        if self._lock is not None:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def register(self, record: RunRecord, name: str, adapter: Path, tags: Mapping[str, str]) -> str:
        """Make a version of the registered model `name` of an adapter; returns its number.

        A version that the run made before it was killed is taken again.
        """
        for made in self.client.search_model_versions(f"run_id = '{record.run_id}'"):
            if made.name == name and made.tags.get("adapter_sha256") == tags["adapter_sha256"]:
                for key, value in tags.items():
                    self.client.set_model_version_tag(name, made.version, key, value)
                return str(made.version)
        run = self.client.get_run(record.run_id)
        model = self.client.create_logged_model(
            run.info.experiment_id, name=name, source_run_id=record.run_id, tags=dict(tags)
        )
        self.client.log_model_artifacts(model.model_id, str(adapter))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(record.run_id, [LoggedModelOutput(model.model_id, 0)])
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self.client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=record.run_id,
            model_id=model.model_id,
            tags=dict(tags),
        )
        return str(version.version)

    def run_of_alias(self, name: str, alias: str) -> str | None:
        """Id of the run that made the version which holds an alias; None if none does."""
        try:
            version = self.client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None  # no such model, or no such alias
            raise
        return str(version.tags["run_id"])

    def move_alias(self, name: str, alias: str, version: str) -> None:
        """Let the alias point to a version."""
        self.client.set_registered_model_alias(name, alias, version)


def _run_lock(name: str) -> FileLock:
    """Held by the process of an open run."""
    folder = home() / "open-runs"
    with writing(folder):
        folder.mkdir(exist_ok=True, mode=0o700)
    return FileLock(folder / f"{name}.lock", timeout=0)


def _artifact_root() -> str:
    return (home() / "mlartifacts").as_uri()


def _dataset_input(stage: str, key: str, ref: DatasetRef) -> DatasetInput:
    profile = {"num_rows": ref.num_rows, "sha256": ref.sha256}
    dataset = Dataset(
        name=stage if key == "data" else f"{stage}-{key}",
        digest=ref.sha256[:_DIGEST_CHARS],
        source_type="local",
        source=json.dumps({"uri": ref.path, "sha256": ref.sha256}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", key)])


def params_of(config: Mapping[str, Any]) -> dict[str, str]:
    """A config as the params of a run."""
    return {key: value[:_MAX_PARAM_CHARS] for key, value in _flatten(config)}


def artifacts_of(report: StageReport) -> Iterator[tuple[str, bytes]]:
    """The files of a stage's run by name: report, tables, figures and evidence."""
    text = json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=False)
    yield "report.json", f"{text}\n".encode()
    for name, table in report.tables.items():
        with io.StringIO(newline="") as file:
            csv.writer(file).writerows([table.columns, *table.rows])
            yield f"{name}.csv", file.getvalue().encode()
    for name, ref in {**report.figures, **report.files}.items():
        path = locate(ref)
        yield f"{name}{path.suffix}", path.read_bytes()


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, str):
        yield prefix, value
    else:
        yield prefix, json.dumps(value)
