"""What a stage is: a pure call with gates, cached by content, logged whether cached or not."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH
from prefect.transactions import transaction

from sft_core.config import PipelineConfig, PolicyConfig
from sft_core.errors import GateError, IntegrityError, TuneTrailError
from sft_core.keys import pseudonym_key
from sft_core.lineage.provenance import code_provenance, environment_provenance
from sft_core.records import sha256_json
from sft_core.reports import DatasetRef, FileRef, Frozen, ModelRef, RunRecord, StageReport
from sft_core.store import check, is_stored
from tasks.fingerprint import content_of, source_digest
from tasks.gates import GateRule, explain
from tasks.tracking_process import TrackingProcess, tracking_process

_log = logging.getLogger("tunetrail")

_timings: ContextVar[dict[str, float]] = ContextVar("timings")
_tracking: ContextVar[TrackingProcess] = ContextVar("tracking")


@dataclass(frozen=True)
class Stage:
    """A named pure call from frozen values to a report."""

    name: str
    body: Callable[..., StageReport]
    source: str
    """Digest of the code as it was imported; an edit during a run must not name its results."""
    gates: tuple[GateRule, ...]
    cached: bool

    def key(self, args: tuple[Any, ...]) -> str:
        """Cache key: inputs by content, source of all code that does the work, pseudonym key."""
        inputs = [content_of(arg) for arg in args]
        key = hashlib.sha256(pseudonym_key()).hexdigest()
        return sha256_json([self.name, self.source, inputs, key])

    def judge(self, report: StageReport, policy: PolicyConfig) -> StageReport:
        """The report with its gates: limits are not part of the cached work."""
        today = datetime.now(UTC).date()
        gates = (rule.judge(report, policy, today) for rule in self.gates)
        return report.model_copy(update={"gates": tuple(g for g in gates if g)})


def stage(
    name: str,
    *,
    gates: tuple[GateRule, ...] = (),
    cached: bool = True,
) -> Callable[[Callable[..., StageReport]], Stage]:
    """Make a stage of a function.

    `gates` hold its metrics against limits of the policy. `cached=False` is for stages with
    effects outside the home's store.
    """
    return lambda body: Stage(name, body, source_digest(body.__module__), gates, cached)


def note_timings(timings: Mapping[str, float]) -> None:
    """Tell the runner durations and rates: facts of this run, which no report may hold."""
    _timings.get({}).update(timings)


def tracking() -> TrackingProcess:
    """Where the run of this stage is logged."""
    return _tracking.get()


class StageRunner:
    """Runs stages in one MLflow parent run: measure, log, then judge."""

    def __init__(self, config: PipelineConfig, flow: str) -> None:
        self.config = config
        self.flow = flow
        self.tracking = tracking_process()
        self.reports: list[StageReport] = []
        self.inputs: dict[str, tuple[FileRef, ...]] = {}
        self.cached: list[str] = []
        self.times: dict[str, tuple[datetime, datetime]] = {}
        self.provenance: dict[str, Any] = {}
        self.problem: BaseException | None = None
        self._held: list[str] | None = None

    def __enter__(self) -> StageRunner:
        flow_run_id, name = str(flow_run.id or ""), str(flow_run.name or self.flow)
        try:
            opened = self.tracking.call("open", self.flow, self.config, flow_run_id, name)
            self.run_id: str = opened()
            self._before = self.tracking.call("logged_before")()
        except BaseException as error:
            self._close_tracking(error, "", {})
            raise
        return self

    @contextmanager
    def stages(self) -> Iterator[None]:
        """Hold back what ends the run early until card and record are written."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001  (raised again in __exit__)
            self.problem = error

    @contextmanager
    def together(self) -> Iterator[None]:
        """Stages that are all measured before a failed gate of any of them ends the run."""
        held = self._held = []
        try:
            yield
        finally:
            self._held = None
        if held:
            raise GateError("\n".join(held))

    def close_with(self, *stages: Stage) -> None:
        """Run the closing stages in every end of the run, each even if one before it failed."""
        self.provenance = {"code": code_provenance(), "environment": environment_provenance()}
        for stage in stages:
            try:
                self(stage, self.record())
            except Exception as error:  # noqa: BLE001  (raised again in __exit__)
                _log.error("%s: failed: %s", stage.name, type(error).__name__)
                self.problem = self.problem or error

    def __call__(self, stage: Stage, *args: Any) -> StageReport:
        """Run one stage, from cache where nothing that it depends on has changed.

        Raises:
            GateError: a gate blocks; the report is logged by then. Inside `together` it waits.
        """
        _log.info("%s: started", stage.name)
        self.inputs[stage.name] = tuple(dict.fromkeys(_refs_in(args)))
        key = self._key(stage, args)
        with self._logged(stage.name, key or ""):
            timings: dict[str, float] = {}
            _timings.set(timings)
            _tracking.set(self.tracking)
            started = time.monotonic()
            report, cached = self._call(stage, args, key)
            timings["stage_seconds"] = time.monotonic() - started
            report = stage.judge(report, self.config.policy)
            self.reports.append(report)
            before = self._before.get(stage.name)
            if before and before[:2] == (key or "", report.sha256):
                cached = before[2]
            if cached:
                self.cached.append(stage.name)
            self.tracking.call("log_stage", report, cached, timings)
            _log.info("%s: %s%s", stage.name, summary_line(report), " (cached)" if cached else "")
            failed = [explain(report, gate) for gate in report.gates if gate.blocks]
            if self._held is not None:
                self._held += failed
            elif failed:
                raise GateError("\n".join(failed))
        return report

    @contextmanager
    def _logged(self, name: str, key: str) -> Iterator[None]:
        """A stage's run in MLflow, closed with its true status whatever happens inside."""
        status, began = "KILLED", datetime.now(UTC)
        try:
            self.tracking.call("begin_stage", name, key)
            yield
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            self.times[name] = began, datetime.now(UTC)
            self.tracking.call("end_stage", status)

    def _key(self, stage: Stage, args: tuple[Any, ...]) -> str | None:
        """None for what is not cached, and in a run that is ending."""
        return stage.key(args) if stage.cached and self.problem is None else None

    def _call(
        self, stage: Stage, args: tuple[Any, ...], key: str | None
    ) -> tuple[StageReport, bool]:
        if self.problem is not None:
            # The run is ending, perhaps by a signal that took the embedded server along.
            return stage.body(*args), False
        call = _call_as_task if flow_run.id else _call_here
        report, cached = call(stage, args, key, refresh=False)
        try:
            for ref in filter(is_stored, report.refs() if cached else ()):
                check(ref)
        except IntegrityError as error:
            _log.warning("%s: cached result is unusable, running again: %s", stage.name, error)
            report, cached = call(stage, args, key, refresh=True)
        return report, cached

    def record(self) -> RunRecord:
        """The run so far, as the closing stages see it."""
        return RunRecord(
            run_id=self.run_id,
            flow=self.flow,
            flow_run_id=str(flow_run.id or ""),
            config=self.config.model_dump(mode="json"),
            outcome=_outcome(self.problem),
            problem=str(self.problem) if isinstance(self.problem, TuneTrailError) else "",
            reports=tuple(self.reports),
            inputs=self.inputs,
            cached=tuple(self.cached),
            times=self.times,
            provenance=self.provenance,
        )

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        self.problem = problem = self.problem or error
        verdict = self.record().verdict
        note = f"**Verdict: {verdict}.**"
        if self.record().report("model_card"):
            note += " The model card is in the artifacts: record/README.md."
        tags = {"verdict": verdict, "cached_stages": " ".join(self.cached)}
        self._close_tracking(problem, note, tags)
        # Late, because the library takes a third of a second to import.
        from sft_core.exports.lineage_events import send_lineage_events

        send_lineage_events(self.record())
        if isinstance(problem, TuneTrailError):
            problem.run_id = self.run_id
        if problem is not None and problem is not error:
            raise problem

    def _close_tracking(
        self, problem: BaseException | None, note: str, tags: dict[str, str]
    ) -> None:
        try:
            self.tracking.call("close", _outcome(problem), note, tags)()
        except BaseException:
            self.tracking.close()
            raise
        self.tracking.release()


def _call_as_task(
    stage: Stage, args: tuple[Any, ...], key: str | None, *, refresh: bool
) -> tuple[StageReport, bool]:
    """The report of a Prefect task run, and whether it came from the cache."""

    def body() -> dict[str, Any]:
        return stage.body(*args).model_dump(mode="json")

    run = task(
        name=stage.name,
        task_run_name=stage.name,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda *_: key) if key else NO_CACHE,
        persist_result=key is not None,
        result_serializer="json",
        refresh_cache=refresh,
    )(body)
    state = run(return_state=True)
    report = StageReport.model_validate(state.result(raise_on_failure=True))
    return report, state.name == "Cached"


def _call_here(
    stage: Stage, args: tuple[Any, ...], key: str | None, *, refresh: bool
) -> tuple[StageReport, bool]:
    """The same outside a flow run: no server is asked, and the tasks' stored results are shared."""
    folder = LocalFileSystem(basepath=str(PREFECT_LOCAL_STORAGE_PATH.value()))
    store = ResultStore(result_storage=folder, serializer=JSONSerializer())
    with transaction(key, store, overwrite=refresh, write_on_commit=True) as stored:
        if stored.is_committed() and (found := stored.read()):
            return StageReport.model_validate(found.result), True
        report = stage.body(*args)
        stored.stage(report.model_dump(mode="json"))
    return report, False


def _refs_in(value: Any) -> Iterator[FileRef]:
    """All content that a value points to, as path and digest; a whole record is no input."""
    if isinstance(value, (FileRef, DatasetRef, ModelRef)):
        yield FileRef(path=value.path, sha256=value.sha256)
    elif isinstance(value, StageReport):
        yield from _refs_in(value.refs())
    elif isinstance(value, Frozen) and not isinstance(value, RunRecord):
        yield from _refs_in([each for _, each in value])
    elif isinstance(value, Mapping):
        yield from _refs_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _refs_in(each)


def _outcome(problem: BaseException | None) -> Literal["completed", "failed", "interrupted"]:
    if problem is None:
        return "completed"
    return "failed" if isinstance(problem, Exception) else "interrupted"


def summary_line(report: StageReport) -> str:
    """Counts and verdicts of a stage on one line."""
    rows_in, rows_out = (report.metrics.get(f"num_rows_{end}") for end in ("in", "out"))
    parts = [] if rows_in is None else [f"{rows_in:,.0f} rows in"]
    parts += [] if rows_out is None else [f"{rows_out:,.0f} rows out"]
    parts += [f"{gate.metric} {gate.verdict}" for gate in report.gates]
    return "; ".join(parts) or "done"
