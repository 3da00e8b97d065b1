"""The tracker in a process of its own: MLflow is imported and written to beside the stages.

`python -m tasks.tracking_process FD` is that process. It does what it is told in order, and ends
when the process that started it has gone, after what it was told before.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any

from sft_core.errors import TuneTrailError
from sft_core.store import make_home, writing

_started: list[TrackingProcess] = []
"""Told to begin, for the next run."""
_idle: list[TrackingProcess] = []
"""Done with a run; the next one saves the imports."""


@contextmanager
def tracking_started() -> Iterator[None]:
    """Start the process of the next run now: it imports while the caller does so too."""
    process = _begin()
    _started.append(process)
    try:
        yield
    finally:
        if process in _started:
            _started.remove(process)
            process.close()


def tracking_process() -> TrackingProcess:
    """The process that waits for a run, or one that begins with the environment of this moment."""
    return _started.pop() if _started else _begin()


@atexit.register
def _end_idle() -> None:
    while _idle:
        _idle.pop().close()


def _begin() -> TrackingProcess:
    process = _idle.pop() if _idle else TrackingProcess()
    process.call("begin", dict(os.environ))
    return process


class TrackingProcess:
    """Calls methods of a `Tracker` that lives elsewhere."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        folder = make_home() / "logs"
        with writing(folder):
            folder.mkdir(exist_ok=True)
            log = (folder / "mlflow.log").open("ab")
        with theirs, log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.tracking_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for the run, which then closes what it opened there
            )
        self._num_calls = 0
        self._replies: list[Any] = []

    def call(self, method: str, *args: Any) -> Callable[[], Any]:
        """Have a method called, without waiting; the function that is returned waits for its value.

        Raises:
            Exception: what an earlier call ended with; this one was sent all the same.
        """
        self._num_calls += 1
        try:
            self._pipe.send((method, args))
        except OSError as error:
            raise self._lost() from error
        while self._pipe.poll():
            self._receive()
        return partial(self._value, self._num_calls)

    def release(self) -> None:
        """Let another run of this process have it; every call must have been waited for."""
        _idle.append(self)

    def close(self) -> None:
        """Let the process end once it has done what it was told."""
        self._pipe.close()
        self._process.wait()

    def _value(self, number: int) -> Any:
        while len(self._replies) < number:
            self._receive()
        return self._replies[number - 1]

    def _receive(self) -> None:
        try:
            value, error = self._pipe.recv()
        except (EOFError, OSError) as gone:
            raise self._lost() from gone
        self._replies.append(value)
        if error is not None:
            raise error

    def _lost(self) -> TuneTrailError:
        return TuneTrailError(
            "MLflow's process has ended before the run. Its last words are in logs/mlflow.log of "
            "the home: mend what they name and run again; the run goes on."
        )


def _serve(pipe: Connection) -> None:
    from tasks.tracking import Tracker

    tracker: Tracker | None = None
    problem: Exception | None = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            os._exit(0)  # at once: locks of an open run go with this process
        value = None
        if method == "begin":
            os.environ.clear()
            os.environ.update(*args)
            tracker, problem = _result(Tracker, ())
        elif tracker is not None:
            value, problem = _result(getattr(tracker, method), args)
        try:
            pipe.send((value, problem))
        except BrokenPipeError:  # nobody waits for it, but what was told before is done
            continue


def _result(method: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return method(*args), None
    except Exception as error:  # noqa: BLE001  (raised in the other process)
        error.add_note(traceback.format_exc())
        return None, error


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the run, which closes first
    _serve(Connection(int(sys.argv[1])))
