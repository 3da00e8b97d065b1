"""A run as OpenLineage events, for Marquez, DataHub and others that draw lineage.

Each stage is a run of its own under the run of the pipeline. Data sets, models and files are named
by content, as in the record, so that what one stage made is what a later one read, in this run and
in others. Gates are tests of the run. Ids follow from the run's id, so that sending twice changes
nothing.

Source: OpenLineage 2-0-2; facets of openlineage-python 1.54.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import uuid
from collections.abc import Iterator
from datetime import datetime

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import (
    InputDataset,
    Job,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
    set_producer,
)
from openlineage.client.facet_v2 import (
    DatasetFacet,
    RunFacet,
    dataset_type_dataset,
    dataset_version_dataset,
    documentation_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    tags_run,
    test_run,
)
from openlineage.client.serde import Serde

from sft_core.documents.card import readable
from sft_core.reports import DatasetRef, FileRef, Gate, ModelRef, RunRecord, StageReport
from sft_core.store import Ref, is_stored

_log = logging.getLogger("tunetrail")
_SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")
_STORE = "tunetrail"
"""Namespace of what lies in the home, by content."""
_OUTSIDE = "file"
"""Namespace of sources and base models, by path."""
_ENDS = {
    "completed": RunState.COMPLETE,
    "failed": RunState.FAIL,
    "interrupted": RunState.ABORT,
}

set_producer(f"urn:tunetrail:{importlib.metadata.version('tunetrail')}")


def render_lineage_events(record: RunRecord) -> str:
    """`openlineage.jsonl`: an event a line, with the times that the record holds."""
    return "".join(Serde.to_json(event) + "\n" for event in lineage_events(record))


def send_lineage_events(record: RunRecord) -> int:
    """Send the events where the library's own settings say; returns how many were sent.

    Those are `OPENLINEAGE_URL`, `OPENLINEAGE__...` and `openlineage.yml`; without them nothing is
    sent. A server that cannot be reached is a warning: the run and its record are not its business.
    """
    logging.getLogger("openlineage").setLevel(logging.ERROR)  # it warns where nothing is set
    events, sent = lineage_events(record), 0
    try:
        client = OpenLineageClient()
        if not client.config.transport or client.transport.kind == "noop":
            return 0
        for event in events:
            client.emit(event)
            sent += 1
        client.close()
    except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
        _log.warning(
            "lineage: %d of %d events were sent, then OpenLineage's client failed (%s). Check its "
            "settings and its server; the events lie in the run's openlineage.jsonl.",
            sent, len(events), type(error).__name__,
        )  # fmt: skip
    return sent


def lineage_events(record: RunRecord) -> list[RunEvent]:
    """The run, and a start and an end of each stage; nothing where the record holds no times."""
    if not record.times:
        return []
    begins = min(begin for begin, _ in record.times.values())
    ends = max(end for _, end in record.times.values())
    run, job = _uuid(record), _job(record, "PIPELINE")
    tags = {
        "mlflow_run_id": record.run_id,
        "prefect_flow_run_id": record.flow_run_id,
        "verdict": record.verdict,
    }
    facets: dict[str, RunFacet] = {"tags": _tags(tags)}
    if record.problem:
        facets["errorMessage"] = _error(record.problem)
    return [
        _event(RunState.START, begins, Run(run), job),
        *_stage_events(record),
        _event(_ENDS[record.outcome], ends, Run(run, facets), job),
    ]


def _stage_events(record: RunRecord) -> Iterator[RunEvent]:
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(_uuid(record)), job=parent_run.Job(_STORE, _job_name(record))
    )
    read = _Inputs(record)
    for stage, (begin, end) in record.times.items():
        report, run, job = record.report(stage), _uuid(record, stage), _job(record, "STAGE", stage)
        facets: dict[str, RunFacet] = {"parent": parent}
        if stage in record.cached:
            facets["tags"] = _tags({"cached": "true"})
        inputs = read.of(stage)
        yield _event(RunState.START, begin, Run(run, dict(facets)), job, inputs)
        state = _state(record, report)
        if report and report.gates:
            facets["test"] = test_run.TestRunFacet([_test(gate) for gate in report.gates])
        if state != RunState.COMPLETE:
            facets["errorMessage"] = _error(_problem(record, stage))
        yield _event(state, end, Run(run, facets), job, inputs, _outputs(report))


def _event(
    state: RunState,
    time: datetime,
    run: Run,
    job: Job,
    inputs: list[InputDataset] | None = None,
    outputs: list[OutputDataset] | None = None,
) -> RunEvent:
    return RunEvent(
        eventType=state,
        eventTime=time.isoformat(),
        run=run,
        job=job,
        inputs=inputs or [],
        outputs=outputs or [],
    )


def _uuid(record: RunRecord, stage: str = "") -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tunetrail:{record.run_id}{stage and '/'}{stage}"))


def _job_name(record: RunRecord, stage: str = "") -> str:
    return ".".join(filter(None, (record.flow, record.config["name"], stage)))


def _job(record: RunRecord, kind: str, stage: str = "") -> Job:
    facet = job_type_job.JobTypeJobFacet("BATCH", "TUNETRAIL", kind)
    return Job(_STORE, _job_name(record, stage), {"jobType": facet})


def _state(record: RunRecord, report: StageReport | None) -> RunState:
    """A stage without a report ended by an error or a signal; one whose gate blocks has failed."""
    if report is None:
        return RunState.ABORT if record.outcome == "interrupted" else RunState.FAIL
    return RunState.FAIL if any(gate.blocks for gate in report.gates) else RunState.COMPLETE


def _problem(record: RunRecord, stage: str) -> str:
    lines = [line for line in record.problem.splitlines() if line.startswith(f"{stage}:")]
    return "\n".join(lines) or record.problem or "unexpected error or signal; see the run's log"


def _error(message: str) -> error_message_run.ErrorMessageRunFacet:
    return error_message_run.ErrorMessageRunFacet(message, "PYTHON")


def _tags(tags: dict[str, str]) -> tags_run.TagsRunFacet:
    named = [
        tags_run.TagsRunFacetFields(k, value, "TUNETRAIL") for k, value in tags.items() if value
    ]
    return tags_run.TagsRunFacet(named)


def _test(gate: Gate) -> test_run.TestExecution:
    """A required gate that was not measured fails; an advisory one was skipped."""
    status = {"pass": "pass", "fail": "fail", "not measured": "fail" if gate.required else "skip"}
    actual = "not measured" if gate.value is None else readable(gate.value)
    if gate.low is not None and gate.high is not None:
        actual += f" (95 % interval {readable(gate.low)} to {readable(gate.high)})"
    params = {"verdict": gate.verdict, "limit_from": gate.source}
    if gate.waiver:
        params |= {"waived_by": gate.waiver.person, "waived_because": gate.waiver.reason}
    return test_run.TestExecution(
        name=gate.metric,
        status=status[gate.verdict],
        severity="error" if gate.required and gate.waiver is None else "warn",
        type=gate.key,
        expected=f"{'at most' if gate.direction == 'max' else 'at least'} {readable(gate.limit)}",
        actual=actual,
        params=params,
    )


class _Inputs:
    """What each stage read, and what earlier stages called it."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._outside = {
            ref.path
            for report in record.reports
            for ref in report.models.values()
            if ref.base is None
        }
        self._names = {
            ref.path: text for report in record.reports for text, ref in _named_refs(report)
        }

    def of(self, stage: str) -> list[InputDataset]:
        """Its inputs by content; the source files for the stage that reads them."""
        refs = [(ref.path, ref.sha256) for ref in self._record.inputs.get(stage, ())]
        found = [
            InputDataset(
                _OUTSIDE if path in self._outside else _STORE,
                path,
                facets=_facets(sha256, self._names.get(path, "")),
            )
            for path, sha256 in refs
        ]
        report = self._record.report(stage)
        if report and (table := report.tables.get("sources")):
            for row in table.rows:
                cells = dict(zip(table.columns, row, strict=True))
                said = f"source; licence: {cells['licence']}; consent: {cells['consent']}"
                facets = _facets(str(cells["sha256"]), said)
                found.append(InputDataset(_OUTSIDE, str(cells["source"]), facets=facets))
        return found


def _outputs(report: StageReport | None) -> list[OutputDataset]:
    """What it made and stored, without pictures; a base model is no output of anything."""
    outputs = []
    for text, ref in _named_refs(report) if report else ():
        if not is_stored(ref):
            continue
        made = OutputDataset(_STORE, ref.path, facets=_facets(ref.sha256, text, _kind(ref)))
        if isinstance(ref, DatasetRef):
            statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
            made.outputFacets = {"outputStatistics": statistics(rowCount=ref.num_rows)}
        outputs.append(made)
    return outputs


def _named_refs(report: StageReport) -> Iterator[tuple[str, Ref]]:
    kinds: tuple[dict[str, FileRef] | dict[str, DatasetRef] | dict[str, ModelRef], ...] = (
        report.datasets, report.models, report.files, report.private,
    )  # fmt: skip
    for refs in kinds:
        for name, ref in refs.items():
            yield f"{name} of stage {report.stage}", ref


def _kind(ref: Ref) -> str:
    return "MODEL" if isinstance(ref, ModelRef) else "FILE"


def _facets(sha256: str, text: str, kind: str = "") -> dict[str, DatasetFacet]:
    facets: dict[str, DatasetFacet] = {}
    if _SHA256.match(sha256):
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(f"sha256:{sha256}")
    if text:
        facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(text)
    if kind:
        facets["datasetType"] = dataset_type_dataset.DatasetTypeDatasetFacet(kind)
    return facets
