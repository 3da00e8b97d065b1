"""Work in a process of its own: it has only what lies on disk, and its peak memory is its own.

Request and reply are one JSON object each, on standard input and output. An error of our tree
crosses over as it is; a process that ends without a reply is an error as well.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from signal import Signals
from subprocess import PIPE
from tempfile import TemporaryFile
from threading import Thread
from typing import Any

from sft_core import errors
from sft_core.errors import ProcessError, TuneTrailError
from sft_core.store import home, writing

Reply = dict[str, Any]

_prepared: dict[str, subprocess.Popen[str]] = {}


def _start(module: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", module]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def prepared(module: str) -> Iterator[None]:
    """Start the process of the next `ask` now: it imports while the caller works.

    An exception ends it.
    """
    process = _prepared[module] = _prepared.get(module) or _start(module)
    try:
        yield
    except BaseException:
        del _prepared[module]
        with process:
            process.kill()
        raise


@atexit.register
def _end_prepared() -> None:
    """What was never asked, because the result came from the cache."""
    for process in _prepared.values():
        with process:
            process.kill()


def ask(module: str, request: Reply) -> Reply:
    """What `python -m module` replies; it runs in this working directory and environment.

    Raises:
        ProcessError: it ended without a reply.
        TuneTrailError: the error that it reported, of the same kind.
    """
    with _prepared.pop(module, None) or _start(module) as process:
        try:
            replied, said = process.communicate(json.dumps(request))
        except BaseException:
            process.kill()
            raise
    try:
        reply: Reply = json.loads(replied)
    except ValueError as error:
        raise _lost(module, process.returncode, said) from error
    _raise_reported(reply)
    return reply


def follow(module: str, argument: str, on_message: Callable[[Reply], None]) -> None:
    """Call `on_message` for each line, a JSON object, that `python -m module argument` says.

    Its standard input ends when this call does, in whatever way, or when this process is gone: what
    it starts inherits that, and can end itself by it. A message `ended` tells how one of them died.

    Raises:
        ProcessError: it ended, but not with exit code 0.
        TuneTrailError: the first error that it reported, of the same kind.
    """
    command = [sys.executable, "-m", module, argument]
    with TemporaryFile("w+") as words:
        process = subprocess.Popen(
            command, stdin=PIPE, stdout=PIPE, stderr=words, text=True, start_new_session=True
        )
        lifeline, lines = process.stdin, process.stdout
        assert lifeline is not None
        assert lines is not None

        def release() -> None:
            """Whoever outlives the process holds its output open, but not for long."""
            process.wait()
            lifeline.close()

        Thread(target=release, daemon=True).start()
        ended = None
        try:
            for line in lines:
                message = json.loads(line)
                _raise_reported(message)
                ended = message.get("ended", ended)
                on_message(message)
            if process.wait() != 0:
                words.seek(0)
                raise _lost(module, process.returncode, words.read(), ended)
        finally:
            lifeline.close()
            process.terminate()
            process.wait()
            lines.close()


def _raise_reported(reply: Reply) -> None:
    if "error" in reply:
        raise getattr(errors, reply["error"])(reply["message"])


def answer(work: Callable[[Reply], Reply]) -> None:
    """The other end of `ask`: what libraries print goes to standard error."""
    request = json.load(sys.stdin)
    try:
        with redirect_stdout(sys.stderr):
            reply = work(request)
    except TuneTrailError as error:
        reply = {"error": type(error).__name__, "message": str(error)}
    json.dump(reply, sys.stdout)


def how_ended(code: int) -> str:
    """What an exit code of a process says, below 0 the signal."""
    return f"was ended by {Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _lost(module: str, code: int, words: str, ended: str | None = None) -> ProcessError:
    path = home() / "logs" / f"process-{time.strftime('%Y%m%d-%H%M%S')}.log"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(words, encoding="utf-8")
    error = ProcessError(
        f"{module}: {ended or f'its process {how_ended(code)}'} before it replied. The last words "
        f"are in {path}; they may quote data, look before you share them."
    )
    error.killed = code < 0
    return error
