"""Prefect's embedded server: it starts while the flow is imported, and Ctrl-C does not reach it.

`python -m flows.embedded_server`, which is a part of the installation, keeps an empty database
beside the packages. Every new home begins with a copy, or its first start takes half a minute more
for Prefect's migrations.
"""

from __future__ import annotations

import contextvars
import importlib.metadata
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path


def start_server() -> threading.Thread:
    """A thread that ends when the server answers; at once where another server is configured.

    A terminal sends Ctrl-C to every process of a command. Without the server the run could not be
    closed in its true state, so the server waits until the command stops it.
    """
    settings = contextvars.copy_context()  # Prefect's settings can be those of a context
    thread = threading.Thread(target=settings.run, args=(_start,), daemon=True)
    thread.start()
    return thread


def _start() -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer

    begin_database(PREFECT_HOME.value())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits the mask
    SubprocessASGIServer().start()


def begin_database(prefect_home: Path) -> None:
    """Put the migrated empty database where Prefect looks for its own, if none is there."""
    database = prefect_home / "prefect.db"
    if database.exists() or not _empty_database().exists():
        return
    prefect_home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=prefect_home) as folder, suppress(FileExistsError):
        os.link(shutil.copy(_empty_database(), folder), database)


def _empty_database() -> Path:
    version = importlib.metadata.version("prefect")
    return Path(sys.prefix) / "share" / "tunetrail" / f"prefect-{version}.db"


def _migrate() -> None:
    """Make the empty database with Prefect's own command."""
    path = _empty_database()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        settings = {"PREFECT_HOME": folder, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, check=True, env=os.environ | settings, stdout=subprocess.DEVNULL)
        with closing(sqlite3.connect(f"{folder}/prefect.db")) as database:
            database.execute("VACUUM INTO ?", [f"{folder}/{path.name}"])
        os.replace(f"{folder}/{path.name}", path)


if __name__ == "__main__":
    _migrate()
