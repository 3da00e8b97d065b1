"""The whole pipeline: logged before it is judged, registered, sealed, and closed as it ended."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sft_core.errors import GateError, IntegrityError, ModelError
from sft_core.lineage.verification import verify
from tests.conftest import ROOT, cached_stages, change, children, tracking

pytestmark = pytest.mark.flow

STAGES = {
    "ingest", "permit", "validate", "protect", "deduplicate", "split", "decontaminate",
    "audit_bias", "plan", "tokenize", "train", "reload", "evaluate", "retention",
    "fairness", "robustness", "memorisation", "account", "data_card",
    "page", "model_card", "register", "seal", "nominate",
}  # fmt: skip
NEVER_CACHED = {
    "plan", "account", "data_card", "page", "model_card", "register", "seal", "nominate",
}  # fmt: skip


@pytest.fixture
def sft(prefect_server, used_home):
    from flows.sft import sft

    return sft


def artifacts(home, run_id, path=None):
    return {item.path for item in tracking(home).list_artifacts(run_id, path)}


def test_a_run_leaves_every_stage_in_mlflow_and_a_verified_record(sft, home, quick_config):
    run_id = sft(quick_config)
    client = tracking(home)
    parent = client.get_run(run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["tunetrail.verdict"] == "pass"
    assert parent.data.params["training.lora.r"] == "16"
    assert parent.data.metrics["evaluate/num_items"] == 16
    stages = children(home, run_id)
    assert set(stages) == STAGES
    assert {run.info.status for run in stages.values()} == {"FINISHED"}
    assert stages["train"].data.metrics["tokens_per_second"] > 0
    assert len(client.get_metric_history(stages["train"].info.run_id, "loss")) == 4
    assert artifacts(home, stages["validate"].info.run_id) >= {"report.json", "validation.html"}
    assert artifacts(home, stages["train"].info.run_id) >= {"report.json", "loss.png"}
    assert artifacts(home, run_id, "record") >= {"record/README.md", "record/statement.json"}
    train_rows = [i for i in parent.inputs.dataset_inputs if i.dataset.name == "decontaminate"]
    assert len(train_rows[0].dataset.profile) > 64
    version = client.get_model_version_by_alias("quick", "candidate")
    assert version.run_id == run_id
    assert version.tags["verdict"] == "pass"
    assert not [line for line in verify(run_id) if "NOT" in line]

    again = sft(quick_config)
    assert cached_stages(home, again) == STAGES - NEVER_CACHED
    assert set(children(home, again)) == STAGES
    assert client.get_model_version_by_alias("quick", "candidate").run_id == again

    other = change(quick_config, generation={"max_new_tokens": 4})
    assert cached_stages(home, sft(other)) == STAGES - NEVER_CACHED - {
        "evaluate", "retention", "fairness", "robustness", "memorisation",
    }  # fmt: skip


def test_a_failed_data_gate_is_logged_then_raised_and_nothing_is_trained(sft, home, quick_config):
    strict = change(quick_config, policy={"max_rejected_rate": 0.0})
    with pytest.raises(GateError, match=r"validate: dropped_rate is 0\.\d+, limit 0") as failure:
        sft(strict)
    run_id = failure.value.run_id
    stages = children(home, run_id)
    assert stages["validate"].data.metrics["dropped_rate"] > 0
    assert stages["validate"].data.tags["gate.dropped_rate"] == "fail"
    assert stages["validate"].info.status == "FAILED"
    assert not {"tokenize", "train", "evaluate"} & set(stages)
    assert tracking(home).get_run(run_id).info.status == "FAILED"
    card = (home / "runs" / run_id / "README.md").read_text()
    assert "**Verdict: fail.**" in card
    assert "| validate | dropped\\_rate |" in card
    assert list(verify(run_id))
    assert tracking(home).search_registered_models() == []


def test_a_failed_evaluation_gate_keeps_the_model_and_moves_no_alias(sft, home, quick_config):
    run_id = sft(quick_config)
    strict = change(quick_config, policy={"min_primary_gain": 0.99})
    with pytest.raises(GateError, match="primary_gain"):
        sft(strict)
    client = tracking(home)
    versions = {v.version: v for v in client.search_model_versions("name='quick'")}
    assert {v.tags["verdict"] for v in versions.values()} == {"pass", "fail"}
    assert client.get_model_version_by_alias("quick", "candidate").run_id == run_id


def test_a_gate_without_evidence_is_not_a_pass(sft, home, quick_config):
    blind = change(quick_config, policy={"max_label_disparity": 1.0}, bias={"min_mentions": 10_000})
    with pytest.raises(GateError, match="label_disparity was not measured"):
        sft(blind)


def test_a_wrong_model_stops_before_any_work(prefect_server, home, tmp_path, quick_config):
    from flows.sft import sft

    wrong = change(quick_config, model={"model_name_or_path": str(tmp_path)})
    with pytest.raises(ModelError, match=r"has no config\.json"):
        sft(wrong)
    assert not (home / "mlflow.db").exists()


@pytest.mark.slow
def test_sigterm_closes_the_run_and_still_writes_the_record(prefect_server, home, quick_config):
    from prefect.settings import PREFECT_API_URL

    slow = change(quick_config, training={"max_steps": 100_000})
    home.mkdir()
    (home / "config.json").write_text(slow.model_dump_json())
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(home / "config.json")],
        cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:
            if "train: started" in line:
                break
        time.sleep(5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == -signal.SIGTERM
    client = tracking(home)
    runs = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    assert "RUNNING" not in {run.info.status for run in runs}
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.status == "KILLED"
    card = (home / "runs" / parent.info.run_id / "README.md").read_text()
    assert "**Verdict: fail.** The run interrupted" in card
    assert list(verify(parent.info.run_id))


def test_a_failed_closing_stage_leaves_no_pass_no_alias_and_still_closes(sft, home, quick_config):
    first = sft(quick_config)
    chain = home / "chain"
    (chain / "00000002.json").write_text("{}")
    with pytest.raises(IntegrityError, match="Nothing was added"):
        sft(change(quick_config, training={"max_steps": 3}))
    client = tracking(home)
    runs = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    assert "RUNNING" not in {run.info.status for run in runs}
    newest = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert newest.info.status == "FAILED"
    assert newest.data.tags["tunetrail.verdict"] == "fail"
    assert client.get_model_version_by_alias("quick", "candidate").run_id == first


def test_a_damaged_adapter_in_the_store_is_made_again(sft, home, quick_config):
    sft(quick_config)
    weights = next((home / "store").glob("*.dir/adapter_model.safetensors"))
    weights.write_bytes(b"damaged")
    run_id = sft(quick_config)
    assert "train" not in cached_stages(home, run_id)
    assert list(verify())


def test_the_card_says_when_the_result_was_known_before_the_limits(sft, home, quick_config):
    sft(quick_config)
    lenient = change(quick_config, policy={"min_loss_gain": -50.0})
    card = (home / "runs" / sft(lenient) / "README.md").read_text()
    assert "its result was known when the limits of this run were sealed" in card
