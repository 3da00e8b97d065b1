"""Prefect's embedded server: a process that starts beside the imports and ends with the command.

`python -m flows.embedded_server FD` is that process. Without an argument it makes an empty database
beside the packages, as a part of the installation: every new home begins with a copy, or its first
start takes half a minute more for Prefect's migrations.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from signal import SIGTERM

from sft_core.errors import ProcessError

_SECONDS_TO_START = 120
_SECONDS_TO_END = 5


def start_server() -> Callable[[], None]:
    """Let Prefect's settings point to a new server; the function that is returned waits for it.

    Where another server is configured, none is started. It ends with this process, after Prefect
    has sent it the last log lines. Ctrl-C, which a terminal sends to all processes of a command,
    does not reach it: without it the run could not be closed.
    """
    stack = ExitStack()
    atexit.register(stack.close)  # before Prefect is imported: what is registered first runs last
    return stack.enter_context(_server())


@contextmanager
def _server() -> Iterator[Callable[[], None]]:
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    if PREFECT_API_URL.value():
        yield lambda: None
        return
    begin_database(PREFECT_HOME.value())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            process_group=0,
        )
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield lambda: _wait_for(url)
    finally:
        server.terminate()
        try:
            server.communicate(timeout=_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def _wait_for(url: str) -> None:
    """Its port takes connections from the first moment, and is closed if it dies."""
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=_SECONDS_TO_START).raise_for_status()
    except httpx.HTTPError as error:
        raise ProcessError(
            f"Prefect's embedded server did not start ({type(error).__name__}); what it said "
            "stands above. Mend that, or set PREFECT_API_URL to a server of your own."
        ) from error


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


def _serve(listener: socket.socket) -> None:
    """Until SIGTERM, or until the process that started this one has gone."""
    import uvicorn
    from prefect.server.api.server import create_app

    def follow_caller() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), SIGTERM)

    threading.Thread(target=follow_caller, daemon=True).start()
    app = create_app(ephemeral=True, final=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1:]:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        _migrate()
