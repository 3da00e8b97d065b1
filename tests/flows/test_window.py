"""What was edited in MLflow afterwards is found; MLflow finds an old chain that was put back."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.cli import main
from sft_core.errors import IntegrityError
from sft_core.lineage.chain import append
from tasks.window import compare_with_mlflow
from tests.conftest import change, children, quick, tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(prefect_server, tmp_path_factory):
    """A home with two runs and two versions, and a copy of it."""
    from flows.sft import sft

    folder = tmp_path_factory.mktemp("window")
    config = quick(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNETRAIL_HOME", str(folder / "home"))
        runs = [sft(config), sft(change(config, generation={"max_new_tokens": 4}))]
    shutil.copytree(folder / "home", folder / "kept")
    return folder, runs


@pytest.fixture
def attacked(made, monkeypatch):
    """The home, which is put back afterwards: MLflow holds absolute paths."""
    folder, runs = made
    home, kept = folder / "home", folder / "kept"
    monkeypatch.setenv("TUNETRAIL_HOME", str(home))
    yield home, runs
    for part in ("mlartifacts", "chain"):
        shutil.rmtree(home / part)
        shutil.copytree(kept / part, home / part)
    with (
        closing(sqlite3.connect(kept / "mlflow.db")) as source,
        closing(sqlite3.connect(home / "mlflow.db")) as target,
    ):
        source.backup(target)


def difference():
    """The first one that is found."""
    with pytest.raises(IntegrityError) as found:
        list(compare_with_mlflow(None, None))
    return str(found.value)


def execute(home, statement, *values):
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        assert database.execute(statement, values).rowcount > 0


def stage_run(home, run_id, stage):
    return children(home, run_id)[stage].info.run_id


def test_untouched_all_is_the_same(attacked, capsys):
    assert main(["verify"]) == 0
    said = capsys.readouterr().out
    assert said.count("params, ") == 2
    assert "heads of the chain, kept there, are in it" in said
    assert "MLflow model quick: 2 versions" in said
    assert "NOT" not in said


@pytest.mark.parametrize("of_stage", [True, False])
def test_an_edited_metric(attacked, of_stage):
    home, (run_id, _) = attacked
    child = stage_run(home, run_id, "evaluate")
    run, name = (child, "tuned_loss") if of_stage else (run_id, "evaluate/tuned_loss")
    where = "WHERE run_uuid = ? AND key = ?"
    execute(home, f"UPDATE latest_metrics SET value = 0.01 {where}", run, name)
    said = difference()
    assert run_id in said
    assert f"metric {name}: is 0.01, expected" in said


@pytest.mark.parametrize("name", ["tunetrail.verdict", "tunetrail.flow"])
def test_an_edited_tag(attacked, name):
    home, (run_id, _) = attacked
    tracking(home).set_tag(run_id, name, "better")
    assert f"MLflow run {run_id}: tag {name}: is 'better'" in difference()


def test_an_edited_gate(attacked):
    home, (run_id, _) = attacked
    tracking(home).set_tag(stage_run(home, run_id, "evaluate"), "gate.loss_gain", "fail")
    assert "stage evaluate: tag gate.loss_gain: is 'fail', expected 'pass'" in difference()


def test_an_edited_param(attacked):
    home, (run_id, _) = attacked
    execute(home, "UPDATE params SET value = '99' WHERE key = 'seed' AND run_uuid = ?", run_id)
    assert f"MLflow run {run_id}: param seed: is '99', expected '0'" in difference()


@pytest.mark.parametrize("name", ["README.md", "report.html", "run.json", "ledger.parquet"])
def test_an_edited_or_deleted_artifact(attacked, name):
    home, (run_id, _) = attacked
    (path,) = home.glob(f"mlartifacts/*/{run_id}/artifacts/record/{name}")
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    assert f"artifact record/{name}: is '" in difference()
    path.unlink()
    assert f"artifact record/{name}: is 'missing'" in difference()


def test_an_edited_artifact_of_a_stage(attacked):
    home, (run_id, _) = attacked
    child = stage_run(home, run_id, "audit_bias")
    path = next(home.glob(f"mlartifacts/*/{child}/artifacts/*.csv"))
    path.write_text(path.read_text() + "one,more,line\n")
    assert f"stage audit_bias: artifact {path.name}: is" in difference()


def test_a_deleted_run_or_stage(attacked):
    home, (run_id, _) = attacked
    tracking(home).delete_run(stage_run(home, run_id, "train"))
    assert "a run of stage train: is False, expected True" in difference()


def test_an_alias_that_was_moved_by_hand(attacked):
    home, _ = attacked
    tracking(home).set_registered_model_alias("quick", "candidate", 1)
    assert "alias candidate points to version 1, expected 2" in difference()
    tracking(home).set_registered_model_alias("quick", "candidate", 2)
    tracking(home).set_registered_model_alias("quick", "champion", 2)
    assert "alias champion points to version 2, expected none" in difference()


def test_a_version_with_another_adapter_or_tag(attacked):
    home, _ = attacked
    tracking(home).set_model_version_tag("quick", "1", "verdict", "fail")
    assert "version 1: tag verdict: is 'fail', expected 'pass'" in difference()
    tracking(home).set_model_version_tag("quick", "1", "verdict", "pass")
    source = tracking(home).get_model_version("quick", "1").source.removeprefix("file://")
    weights = Path(source) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert "MLflow model quick version 1: adapter: is" in difference()


def test_a_version_that_no_run_made(attacked):
    home, (run_id, _) = attacked
    client = tracking(home)
    source = client.get_model_version("quick", "1").source
    client.create_model_version("quick", source, run_id)
    assert "MLflow model quick: versions: is ['1', '2', '3']" in difference()


def test_an_old_head_with_its_old_statements(attacked):
    """All is signed and in order; only what MLflow has kept knows better."""
    home, _ = attacked
    for path in sorted((home / "chain").glob("0*.json"))[2:]:  # those of the second run
        path.unlink()
    (old,) = home.glob("mlartifacts/**/record/head-00000002.json")
    shutil.copy(old, home / "chain" / "head.json")
    append("note", [("a", "0" * 64)], {"text": "as if nothing had been"})
    said = difference()
    assert "artifact record/head-00000003.json: root: is" in said

    (home / "chain" / "00000003.json").unlink()
    shutil.copy(old, home / "chain" / "head.json")
    assert "signed for 3 statements, the chain has 2" in difference()
