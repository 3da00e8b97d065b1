"""Who holds the alias champion is asked the same; how a gate was passed by is on the record."""

import pyarrow.parquet as pq
import pytest

from flows.summary import load_run
from sft_core.errors import GateError, IntegrityError
from sft_core.lineage.tracing import sealed_run
from sft_core.lineage.verification import verify
from sft_core.store import home as home_of
from sft_core.store import locate
from tests.conftest import change, tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture
def sft(prefect_server, used_home):
    from flows.sft import sft

    return sft


def crown(home, version):
    tracking(home).set_registered_model_alias("quick", "champion", version)


def test_a_tie_with_the_champion_is_no_gain_and_its_record_must_hold(sft, home, quick_config):
    first = sft(quick_config)
    absent = sealed_run(first).report("evaluate").not_measured["champion_primary_gain"]
    assert absent == "no version of quick holds the alias champion"

    crown(home, 1)
    tied = load_run(sft(quick_config))
    report = tied.report("evaluate")
    items = pq.read_table(locate(report.files["items"]))
    assert items["champion_nll"].equals(items["tuned_nll"])
    assert report.metrics["champion_primary_gain"] == 0.0
    assert all(row[-1].startswith("no difference shown") for row in report.tables["champion"].rows)
    assert list(verify(tied.run_id))

    crown(home, 2)
    strict = change(
        quick_config,
        training={"max_steps": 12},
        policy={"min_champion_gain": 0.0, "min_primary_gain": None},
    )
    longer = load_run(sft(strict))
    report = longer.report("evaluate")
    items = pq.read_table(locate(report.files["items"]))
    assert not items["champion_nll"].equals(items["tuned_nll"])
    assert report.metrics["champion_loss_gain"] > 0
    gates = {gate.metric: gate for gate in report.gates}
    assert gates["champion_primary_gain"].key == "policy.min_champion_gain"
    card = (home / "runs" / longer.run_id / "README.md").read_text()
    assert "champion" in card

    # the record of the run that holds the alias is the one that was sealed
    record = next((home_of() / "store").glob(f"{_record_of(tied.run_id)}.json"))
    record.write_bytes(record.read_bytes().replace(b'"champion_primary_gain": 0.0', b'"x": 0.0', 1))
    with pytest.raises(IntegrityError, match=r"store/[0-9a-f]{64}\.json: SHA-256 is"):
        sft(strict)


def _record_of(run_id):
    from sft_core.lineage.chain import read_chain
    from sft_core.lineage.signing import public_key

    entries = [e for e in read_chain(public_key()) if e.predicate["run_id"] == run_id]
    return entries[-1].predicate["record"]


def test_a_failed_gate_that_is_advisory_or_waived_stops_nothing_and_is_told(
    sft, home, quick_config
):
    strict = change(quick_config, policy={"min_primary_gain": 0.9, "min_loss_gain": 50.0})
    with pytest.raises(GateError, match="primary_gain"):
        sft(strict)
    waiver = {
        "limit": "min_primary_gain",
        "reason": "a trial of the pipeline alone",
        "person": "Head of the trial",
        "expires": "2999-12-31",
    }
    let = change(strict, policy={"advisory": ["min_loss_gain"], "waivers": [waiver]})
    run_id = sft(let)
    assert tracking(home).get_model_version_by_alias("quick", "candidate").run_id == run_id
    gates = {gate.metric: gate for _, gate in load_run(run_id).gates}
    assert gates["primary_gain"].verdict == gates["loss_gain"].verdict == "fail"
    assert gates["primary_gain"].waiver.person == "Head of the trial"
    card = (home / "runs" / run_id / "README.md").read_text()
    page = (home / "runs" / run_id / "report.html").read_text()
    for shown in (card, page):
        assert "Head of the trial" in shown
        assert "a trial of the pipeline alone" in shown
        assert "advisory" in shown
    assert list(verify(run_id))


def test_an_error_of_one_stage_does_not_hide_the_failed_gate_of_another(
    sft, home, quick_config, tmp_path
):
    """The gate stands on the card and the run fails; what ended it is the error."""
    texts = tmp_path / "texts.txt"
    texts.write_bytes(b"\xff\xfe broken")
    config = change(quick_config, policy={"min_primary_gain": 0.9}, retention={"texts": str(texts)})
    with pytest.raises(Exception, match="texts") as ended:
        sft(config)
    run = load_run(ended.value.run_id)
    assert {gate.metric: gate.verdict for _, gate in run.gates}["primary_gain"] == "fail"
    assert run.report("robustness") is None
    assert run.verdict == "fail"
    assert (home / "runs" / run.run_id / "README.md").is_file()
