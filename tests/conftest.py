"""Every test works in homes of its own; one embedded Prefect server serves the whole session."""

import os
import tempfile
from pathlib import Path

# Before Prefect is imported: it reads its home once.
os.environ["TUNETRAIL_HOME"] = tempfile.mkdtemp(prefix="tunetrail-tests-")
os.environ.pop("MLFLOW_TRACKING_URI", None)

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh home for one test."""
    path = tmp_path / "home"
    monkeypatch.setenv("TUNETRAIL_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def prefect_server():
    """The embedded server, started once: it takes about 12 s."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def shared():
    """Real data and a real model beside the checkout; tests that need them say when they skip."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is not here: {SHARED}")
    return SHARED
