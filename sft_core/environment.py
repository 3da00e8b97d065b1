"""Settings that must stand before Prefect, MLflow, torch or Great Expectations are imported.

Whatever the user set stays. Nothing calls home: the telemetry of every library is off. Imported by
every command first, so it imports nothing that takes time.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path


def home() -> Path:
    """Absolute path of the home: `TUNETRAIL_HOME`, or `.tunetrail` in the working directory."""
    return Path(os.environ.get("TUNETRAIL_HOME", ".tunetrail")).absolute()


def configure_environment() -> None:
    """Put Prefect's home under ours, silence telemetry, and keep idle threads from spinning.

    Garbage is looked for less often: with the default of 700, a tenth of all imports is the search.
    """
    gc.set_threshold(20_000)
    defaults = {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tunetrail",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # With the default, waiting threads spin and starve their neighbours.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
