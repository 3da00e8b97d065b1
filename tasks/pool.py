"""The training stage on another machine: a deployment of the flow `train`, in a work pool.

What it needs and what it makes passes through the store at `TUNETRAIL_STORE_URL`; Prefect carries
the names alone.
"""

from __future__ import annotations

import json
import logging
import time

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from sft_core import errors, remote_store
from sft_core.config import ModelConfig, TrainingConfig
from sft_core.errors import ConfigError, ProcessError, TuneTrailError
from sft_core.reports import FileRef, StageReport
from sft_core.store import check, is_stored, locate

_POLL_SECONDS = 5.0
_KEY = "TUNETRAIL_TRAIN_DEPLOYMENT"

_log = logging.getLogger("tunetrail")


def fit_on_pool(
    deployment: str, tokens: StageReport, model: ModelConfig, config: TrainingConfig, seed: int
) -> tuple[StageReport, dict[str, float]]:
    """Report and timings of the stage, as a run of the deployment made them.

    The run is cancelled when this call is called off.

    Raises:
        ConfigError: there is no such deployment, or no store that both machines reach.
        ProcessError: the run did not end well.
        TuneTrailError: the error of ours that it ended with, of the same kind.
    """
    if not remote_store.is_set():
        raise ConfigError(
            f"{_KEY} is {deployment}, and TUNETRAIL_STORE_URL is not set: set it to a place that "
            "this machine and the pool reach."
        )
    for ref in filter(is_stored, tokens.refs()):
        remote_store.push(locate(ref), ref.path)
    sections = {"tokens": tokens, "model": model, "training": config}
    values = {name: section.model_dump(mode="json") for name, section in sections.items()}
    try:
        started = run_deployment(deployment, parameters=values | {"seed": seed}, timeout=0)
        assert isinstance(started, FlowRun)  # a coroutine where it is called from one
    except ObjectNotFound as error:
        raise ConfigError(
            f"{_KEY}: there is no deployment {deployment}. Deploy it: docs/work-pools.md."
        ) from error
    _log.info("train: %s runs as %s", deployment, started.name)
    with get_client(sync_client=True) as client:
        name = _reply(_ended(client, started), deployment)
    ref = FileRef(path=f"store/{name}.json", sha256=name)
    check(ref)
    reply = json.loads(locate(ref).read_bytes())
    return StageReport.model_validate(reply["report"]), reply["timings"]


def _ended(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    try:
        told = None
        while not (run.state and run.state.is_final()):
            if run.state and run.state.name != told:
                told = run.state.name
                _log.info("train: %s is %s", run.name, told)
            time.sleep(_POLL_SECONDS)
            run = client.read_flow_run(run.id)
    except BaseException:
        client.set_flow_run_state(run.id, Cancelling())
        raise
    return run


def _reply(run: FlowRun, deployment: str) -> str:
    """Digest of what the run stored."""
    assert run.state is not None
    message = run.state.message or ""
    if run.state.is_completed():
        return message
    kind = getattr(errors, run.state.name or "", None)
    if isinstance(kind, type) and issubclass(kind, TuneTrailError):
        raise kind(message)
    raise ProcessError(
        f"train: the run {run.name} of {deployment} ended as {run.state.name}. Look at it in the "
        "Prefect UI, mend the cause and run again."
    )
