"""The embedded server begins with a migrated database and ends with the command, in any case."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from flows.embedded_server import begin_database
from tests.conftest import ROOT

COMMAND = """
from sft_core.environment import configure_environment
configure_environment()
from flows.embedded_server import start_server
wait = start_server()
wait()
from prefect.settings import PREFECT_API_URL
print(PREFECT_API_URL.value(), flush=True)
input()
"""


def answers(url):
    with socket.socket() as probe:
        return probe.connect_ex((urlsplit(url).hostname, urlsplit(url).port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_server_ends_with_the_command(home, number):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        cwd=ROOT,
        env=environment,
        stdin=pipe,
        stdout=pipe,
        text=True,
    ) as process:
        url = process.stdout.readline().strip()
        assert answers(url)
        if number is None:
            process.stdin.close()
        else:
            process.send_signal(number)
        process.wait()
    end = time.monotonic() + 20
    while answers(url) and time.monotonic() < end:
        time.sleep(0.1)
    assert not answers(url)


def test_a_new_home_begins_with_the_migrated_database_and_an_old_one_is_left_alone(tmp_path):
    begin_database(tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new" / "prefect.db")) as database:
        assert database.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "prefect.db").write_bytes(b"mine")
    begin_database(tmp_path / "old")
    assert (tmp_path / "old" / "prefect.db").read_bytes() == b"mine"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["prefect.db"]
