"""Every test works in homes of its own; one embedded Prefect server serves the whole session."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Before Prefect is imported: it reads its home once.
os.environ["TUNETRAIL_HOME"] = tempfile.mkdtemp(prefix="tunetrail-tests-")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"

from sft_core.environment import configure_environment

configure_environment()

import pytest

from tests.warm_python import warm_python

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
PYTHON = sys.executable
BRIEF = {
    "evaluation": {"max_items": 16, "num_resamples": 100},
    "generation": {"max_new_tokens": 8},
    "retention": {"texts": str(ROOT / "tests/few_texts.txt"), "max_preferences": 4},
    "fairness": {"max_pairs": 8, "max_prompts": 2},
    "robustness": {"max_items": 2},
    "memorisation": {"max_rows": 4},
}
"""Sections of a run that measures all, on a few items."""


def pytest_configure(config):
    """One warm python for all workers, which inherit its path."""
    if not hasattr(config, "workerinput"):
        manager = warm_python()
        os.environ["WARM_PYTHON"] = str(manager.__enter__())
        config.add_cleanup(lambda: manager.__exit__(None, None, None))


def pytest_collection_modifyitems(items):
    """Files that take long come first, so that workers which share out the files end together."""
    long = {item.path for item in items if {"slow", "flow"} & {m.name for m in item.iter_markers()}}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session", autouse=True)
def _warm_python():
    """What tests and the code under test start by `sys.executable`."""
    sys.executable = os.environ["WARM_PYTHON"]
    yield
    sys.executable = PYTHON


@pytest.fixture(autouse=True)
def _fresh_python(request, monkeypatch):
    """The real one, for what is marked so."""
    if request.node.get_closest_marker("fresh_python"):
        monkeypatch.setattr(sys, "executable", PYTHON)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh home for one test."""
    path = tmp_path / "home"
    monkeypatch.setenv("TUNETRAIL_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's database before the first run."""
    from tasks.tracking import Tracker

    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNETRAIL_HOME", str(home))
        Tracker()
    return home / "mlflow.db"


@pytest.fixture
def used_home(home, empty_database):
    """A home in which MLflow's database lies already: its migrations take seconds."""
    home.mkdir()
    shutil.copy(empty_database, home)
    return home


@pytest.fixture(scope="session")
def prefect_server():
    """The embedded server, started once: it takes seconds."""
    from prefect.logging.configuration import setup_logging

    from flows.embedded_server import start_server

    setup_logging()  # now, or its console would write to the first test's captured stream
    start_server()()


@pytest.fixture(scope="session")
def shared():
    """Real data and a real model beside the checkout; tests that need them say when they skip."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is not here: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def truth():
    """What the generator planted in the demo data, by kind, as 1-based source lines."""
    return json.loads((ROOT / "examples/triage/data/truth.json").read_text())


@pytest.fixture
def quick_config(tmp_path):
    """The whole pipeline on a few hundred rows and a few steps: for plumbing, not for quality."""
    return quick(tmp_path)


def quick(folder):
    """The same, with its rows in a folder."""
    from sft_core.config.file import parse_config

    rows = (ROOT / "examples/triage/data/referrals.jsonl").read_text().splitlines(keepends=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(rows[:300]))
    return parse_config(
        {
            "name": "quick",
            "ingest": {
                "sources": [{"path": str(data), "subgroups": ["sex"], "consent": "not needed"}]
            },
            "privacy": {"secret": "drop"},
            "model": {"model_name_or_path": str(ROOT / "examples/triage/base")},
            "training": {"max_steps": 4, "logging_steps": 1},
            **BRIEF,
            "policy": {"min_test_rows": 5, "max_label_disparity": None, "max_subgroup_gap": None},
        },
        "quick",
    )


def change(config, **sections):
    """A config with other values: `change(config, policy={"min_rows": 5})`."""
    from sft_core.config import PipelineConfig

    values = config.model_dump(mode="json")
    for section, fields in sections.items():
        values[section] |= fields
    return PipelineConfig.model_validate(values)


def put_records(records):
    """Store records; returns their reference."""
    from sft_core.store import record_file

    with record_file() as file:
        for record in records:
            file.add(record)
    return file.ref


def tracking(home):
    """An MLflow client on a home's database."""
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{home}/mlflow.db")


def children(home, run_id):
    """Child runs of a run by stage."""
    client = tracking(home)
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.data.tags["tunetrail.stage"]: run for run in found}


def cached_stages(home, run_id):
    """Stages of a run that came from the cache."""
    runs = children(home, run_id).items()
    return {stage for stage, run in runs if run.data.tags["tunetrail.cached"] == "true"}
