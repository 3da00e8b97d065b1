"""What passes between stages: references by content, gates, and one report shape for all.

A report is a function of its inputs. It holds no clock, duration, run id, host name or temporary
path; those belong to MLflow, which keeps them beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from itertools import takewhile
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sft_core.records import sha256_json

Cell = str | int | float | None


class Frozen(BaseModel):
    """Immutable value; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileRef(Frozen):
    """A file by content: `path` is relative to the home and follows from `sha256`."""

    path: str
    sha256: str


class DatasetRef(Frozen):
    """Rows by content: canonical JSON lines, so `sha256` is the digest of the rows."""

    path: str
    sha256: str
    num_rows: int = Field(ge=0)


class ModelRef(Frozen):
    """A model folder by content; `base` is the digest of the base model of an adapter."""

    path: str
    sha256: str
    base: str | None = None


class Waiver(Frozen):
    """A person lets a model pass in spite of a gate, for a reason and a time."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    limit: str
    """Name of the limit, such as `max_bias_shift`."""
    reason: str = Field(min_length=10)
    """Why the model may be used all the same."""
    person: str = Field(min_length=3)
    """Who answers for that."""
    expires: date
    """Last day on which it holds."""


class Gate(Frozen):
    """A metric held against a limit: pass, fail or not measured, which is not a pass.

    A metric that is an estimate comes with the ends of its 95 % interval, `low` and `high`. It
    passes or fails where the whole interval is on one side of the limit; where the limit lies
    inside, the items were too few to tell, and it is not measured.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    limit: float
    direction: Literal["max", "min"]
    key: str
    """Config key of the limit."""
    source: str = "default"
    """Where the limit comes from: `default`, `config`, or what the policy says of it."""
    required: bool = True
    """Whether it decides; an advisory gate is shown alone."""
    waiver: Waiver | None = None
    """That holds on the day of the run."""

    @property
    def verdict(self) -> Literal["pass", "fail", "not measured"]:
        """A value equal to the limit passes."""
        if self.value is None:
            return "not measured"
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        best, worst = (low, high) if self.direction == "max" else (high, low)
        if self._keeps(worst):
            return "pass"
        return "not measured" if self._keeps(best) else "fail"

    @property
    def blocks(self) -> bool:
        """Whether the model must not go on."""
        return self.required and self.verdict != "pass" and self.waiver is None

    def _keeps(self, value: float) -> bool:
        return value <= self.limit if self.direction == "max" else value >= self.limit


class Table(Frozen):
    """A small table for people: shown in MLflow, on the card and on the review page."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class StageReport(Frozen):
    """What a stage measured and made.

    `metrics` are scalars (NaN is refused: leave a metric out when it cannot be measured, and say
    so in `not_measured`). `series` are curves by step, `figures` PNG files, `files` evidence such
    as per-item scores or the decisions about rows.
    """

    stage: str
    metrics: dict[str, float] = {}
    not_measured: dict[str, str] = {}
    """Metric that could not be measured, and why."""
    gates: tuple[Gate, ...] = ()
    tables: dict[str, Table] = {}
    series: dict[str, tuple[tuple[int, float], ...]] = {}
    figures: dict[str, FileRef] = {}
    datasets: dict[str, DatasetRef] = {}
    models: dict[str, ModelRef] = {}
    files: dict[str, FileRef] = {}
    private: dict[str, FileRef] = {}
    """Quarantined raw text: digests are recorded, the files never leave the home."""

    @property
    def data(self) -> DatasetRef:
        """The rows that go on, for stages that make one data set."""
        return self.datasets["data"]

    def plus(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        tables: Mapping[str, Table] | None = None,
        files: Mapping[str, FileRef] | None = None,
    ) -> StageReport:
        """The report with more metrics, tables and files."""
        fields = self.model_dump() | {
            "metrics": self.metrics | dict(metrics or {}),
            "tables": self.tables | dict(tables or {}),
            "files": self.files | dict(files or {}),
        }
        return StageReport.model_validate(fields)

    def to_json(self) -> bytes:
        """As it is stored: keys in the order in which they were made, which the card keeps."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False).encode()

    @property
    def sha256(self) -> str:
        """Digest of the whole report."""
        return sha256_json(self.model_dump(mode="json"))

    def refs(self) -> list[FileRef | DatasetRef | ModelRef]:
        """Everything the report points to."""
        return [
            *self.figures.values(),
            *self.datasets.values(),
            *self.models.values(),
            *self.files.values(),
            *self.private.values(),
        ]


class RunRecord(Frozen):
    """A whole run, as card, registry and seal see it."""

    run_id: str
    """MLflow's id of the parent run."""
    flow: str
    flow_run_id: str
    """Prefect's id of the flow run."""
    config: dict[str, Any]
    outcome: Literal["completed", "failed", "interrupted"]
    problem: str = ""
    """Message of the error that ended the run; empty when it completed or crashed."""
    reports: tuple[StageReport, ...]
    inputs: dict[str, tuple[FileRef, ...]] = {}
    """What each stage was given, by content: data sets, models, and files of earlier reports."""
    cached: tuple[str, ...] = ()
    """Stages whose report came from the cache: their result was known before this run."""
    times: dict[str, tuple[datetime, datetime]] = {}
    """When each stage began and ended in this run; one without a report ended by an error."""
    provenance: dict[str, Any] = {}
    """Code and environment that the run was made with, once it is closing."""

    def report(self, stage: str) -> StageReport | None:
        """Report of a stage; None when the run ended before it."""
        return next((r for r in self.reports if r.stage == stage), None)

    def before(self, stage: str) -> RunRecord:
        """The record as a stage saw it that has a report: nothing of itself or of later ones."""
        reports = self.reports[: [report.stage for report in self.reports].index(stage)]
        seen = set(takewhile(lambda name: name != stage, self.times))
        return self.model_copy(
            update={
                "reports": reports,
                "inputs": {name: refs for name, refs in self.inputs.items() if name in seen},
                "cached": tuple(name for name in self.cached if name in seen),
                "times": {name: times for name, times in self.times.items() if name in seen},
            }
        )

    @property
    def gates(self) -> list[tuple[str, Gate]]:
        """All gates with the stages that they belong to."""
        return [(r.stage, gate) for r in self.reports for gate in r.gates]

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """`pass` only when the run completed and no gate blocks."""
        ok = self.outcome == "completed" and not any(gate.blocks for _, gate in self.gates)
        return "pass" if ok else "fail"
