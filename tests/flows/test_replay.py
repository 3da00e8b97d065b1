"""A sealed run is repeated in a home of its own: the same to the byte, or the first difference."""

import json
import os

import pytest

from flows.cli import main
from tests.conftest import tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.mark.timeout(600)
def test_a_replay_is_the_same_or_names_what_differs(
    prefect_server, home, quick_config, capfd, monkeypatch
):
    from prefect.settings import PREFECT_API_URL

    from flows.audit import audit
    from flows.sft import sft

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    run_id = sft(quick_config)
    left = sorted(os.listdir(home)), len(list((home / "chain").iterdir()))
    assert main(["run", "--replay", run_id]) == 0
    assert capfd.readouterr().out.startswith("same: 23 stages, ")
    assert (sorted(os.listdir(home)), len(list((home / "chain").iterdir()))) == left
    assert len(tracking(home).search_model_versions("name='quick'")) == 1

    audited = audit(quick_config)
    path = quick_config.ingest.sources[0].path
    with open(path) as file:
        rows = file.readlines()
    with open(path, "w") as file:
        file.writelines(rows[:-1])
    assert main(["run", "--json", "--replay", audited]) == 6
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["error"] == "IntegrityError"
    assert "replay: ingest: metrics num_rows" in found["message"]

    os.unlink(path)
    assert main(["run", "--replay", audited]) == 1
    assert "could not be repeated" in capfd.readouterr().err


def test_only_a_sealed_run_can_be_repeated(home, capsys):
    assert main(["run", "--replay", "0" * 32]) == 6
    assert "no sealed run" in capsys.readouterr().err
    assert main(["run", "config.yaml", "--replay", "0" * 32]) == 2
