"""Prefect's embedded server: it starts while the flow is imported, and Ctrl-C does not reach it."""

from __future__ import annotations

import contextvars
import signal
import threading


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
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits the mask
    SubprocessASGIServer().start()
