"""Prefect's embedded server: it starts while the flow is imported, and Ctrl-C does not reach it."""

from __future__ import annotations

import signal
import threading


def start_server() -> threading.Thread:
    """A thread that ends when the server answers; at once where another server is configured.

    A terminal sends Ctrl-C to every process of a command. Without the server the run could not be
    closed in its true state, so the server waits until the command stops it.
    """
    thread = threading.Thread(target=_start, name="prefect server", daemon=True)
    thread.start()
    return thread


def _start() -> None:
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits the mask
        SubprocessASGIServer().start()
