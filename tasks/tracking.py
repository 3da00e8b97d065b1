"""MLflow as the window: one parent run a pipeline run, one child a stage, cached or not.

The only module that imports mlflow. It speaks to the client with explicit run ids, because the
active run is thread-local, and it never leaves a run RUNNING behind an exception or a signal.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
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

    def open(self, flow: str, config: PipelineConfig, flow_run_id: str, name: str) -> str:
        """Start the parent run with the config as its params; returns its id."""
        run = self.client.create_run(
            self._experiment(config.name),
            run_name=name,
            tags={
                "tunetrail.flow": flow,
                "tunetrail.config_sha256": config.sha256,
                "tunetrail.policy_sha256": config.policy.sha256,
                "prefect.flow_run_id": flow_run_id,
            },
        )
        run_id: str = run.info.run_id
        params = [
            Param(key, value[:_MAX_PARAM_CHARS])
            for key, value in _flatten(config.model_dump(mode="json"))
        ]
        try:
            for start in range(0, len(params), 100):
                self.client.log_batch(run_id, params=params[start : start + 100])
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        return run_id

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

    @contextmanager
    def child(self, parent: str, name: str) -> Iterator[str]:
        """A stage's run, closed with its true status whatever happens inside."""
        experiment = self.client.get_run(parent).info.experiment_id
        run = self.client.create_run(
            experiment, run_name=name, tags={"mlflow.parentRunId": parent, "tunetrail.stage": name}
        )
        status = "KILLED"
        try:
            yield run.info.run_id
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            self.client.set_terminated(run.info.run_id, status)

    def log_report(self, parent: str, child: str, report: StageReport, cached: bool) -> None:
        """Write a report to its child run; metrics and data sets also to the parent."""
        now = int(time.time() * 1_000)
        scalars = [Metric(key, value, now, 0) for key, value in report.metrics.items()]
        curves = [
            Metric(key, value, now, step)
            for key, points in report.series.items()
            for step, value in points
        ]
        tags = [
            RunTag("tunetrail.cached", str(cached).lower()),
            RunTag("tunetrail.report_sha256", report.sha256),
            *(RunTag(f"gate.{gate.metric}", gate.verdict) for gate in report.gates),
        ]
        self.client.log_batch(child, tags=tags)
        for start in range(0, len(scalars + curves), _MAX_METRICS_A_BATCH):
            batch = (scalars + curves)[start : start + _MAX_METRICS_A_BATCH]
            self.client.log_batch(child, metrics=batch)
        prefixed = [Metric(f"{report.stage}/{m.key}", m.value, now, 0) for m in scalars]
        self.client.log_batch(parent, metrics=prefixed)
        inputs = [_dataset_input(report.stage, key, ref) for key, ref in report.datasets.items()]
        if inputs:
            self.client.log_inputs(child, datasets=inputs)
            self.client.log_inputs(parent, datasets=inputs)
        with tempfile.TemporaryDirectory() as folder:
            _write_artifacts(Path(folder), report)
            self.client.log_artifacts(child, folder)

    def log_files(self, run_id: str, files: Mapping[str, Path], folder: str) -> None:
        """Put files under a folder of the run's artifacts, by the given names."""
        with tempfile.TemporaryDirectory() as temporary:
            for name, path in files.items():
                (Path(temporary) / name).write_bytes(path.read_bytes())
            self.client.log_artifacts(run_id, temporary, folder)

    def log_timings(self, run_id: str, timings: Mapping[str, float]) -> None:
        """Durations and rates: facts of this run, which no report holds."""
        now = int(time.time() * 1_000)
        self.client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in timings.items()])

    def close(self, run_id: str, outcome: str, note: str, tags: Mapping[str, str]) -> None:
        """End the parent run with its true status; the note is what the UI shows first."""
        self.client.set_tag(run_id, "mlflow.note.content", note)
        for key, value in tags.items():
            self.client.set_tag(run_id, f"tunetrail.{key}", value)
        self.client.set_terminated(run_id, _STATUS[outcome])

    def register(self, record: RunRecord, name: str, adapter: Path, tags: Mapping[str, str]) -> str:
        """Make a version of the registered model `name` of an adapter; returns its number."""
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

    def move_alias(self, name: str, alias: str, version: str) -> None:
        """Let the alias point to a version."""
        self.client.set_registered_model_alias(name, alias, version)


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


def _write_artifacts(folder: Path, report: StageReport) -> None:
    text = json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    for name, table in report.tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([table.columns, *table.rows])
    for name, ref in {**report.figures, **report.files}.items():
        path = locate(ref)
        (folder / f"{name}{path.suffix}").write_bytes(path.read_bytes())


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, str):
        yield prefix, value
    else:
        yield prefix, json.dumps(value)
