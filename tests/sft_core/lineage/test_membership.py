"""A proof convinces who has the public key alone, and shows no row but the one asked about."""

import json

import pyarrow as pa
import pytest

from sft_core.errors import ConfigError, IntegrityError
from sft_core.lineage.chain import append, rotate_key
from sft_core.lineage.ledger import LEDGER, put_table
from sft_core.lineage.membership import Proof, check_proof, prove, training_set
from sft_core.lineage.signing import public_key
from sft_core.reports import RunRecord, StageReport
from sft_core.store import put_bytes


def row_id(number):
    return f"{number:064x}"


def seal(trained, others=(), run_id="run"):
    """A sealed run whose ledger has these rows."""
    lines = [(n, "train") for n in trained] + [(n, "dropped") for n in others]
    columns = {name: [None] * len(lines) for name in LEDGER.names}
    columns |= {"row_id": [row_id(n) for n, _ in lines], "fate": [fate for _, fate in lines]}
    ledger = pa.table(columns, schema=LEDGER)
    reports = (
        StageReport(stage="train"),
        StageReport(stage="account", files={"ledger": put_table(ledger)}),
    )
    record = RunRecord(
        run_id=run_id, flow="sft", flow_run_id="", config={}, outcome="completed", reports=reports
    )
    ref = put_bytes(record.model_dump_json().encode(), ".json")
    append(
        "run",
        [],
        {"run_id": run_id, "record": ref.sha256, "training_set": training_set(ledger)},
    )


def asked(number, key=None):
    return check_proof(prove("run", row_id(number)), row_id(number), key or public_key())


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8])
def test_every_row_is_proved_in_and_every_other_one_out(home, size):
    trained = range(0, 2 * size, 2)
    seal([*trained, *trained], others=[1])  # a row that stands twice is one row
    for number in range(2 * size + 3):
        assert asked(number) == ("run", number in trained)


def test_it_shows_no_other_row(home):
    seal(range(8), others=range(8, 12))
    for number in (3, 9):
        said = prove("run", row_id(number)).model_dump_json()
        assert not [n for n in range(12) if row_id(n) in said]


def test_a_proof_after_a_rotation_is_checked_with_the_first_key(home):
    seal([1])
    first = public_key()
    rotate_key()
    seal([2], run_id="later")
    assert check_proof(prove("later", row_id(2)), row_id(2), first) == ("later", True)
    assert check_proof(prove("run", row_id(2)), row_id(2), first) == ("run", False)


def change(proof, **fields):
    return Proof.model_validate(proof.model_dump() | fields)


def test_a_proof_that_was_changed_does_not_hold(home):
    seal(range(0, 20, 2))
    there, absent = prove("run", row_id(4)), prove("run", row_id(5))
    key = public_key()
    with pytest.raises(IntegrityError, match="about another row"):
        check_proof(there, row_id(6), key)
    moved = [p.model_dump() | {"index": p.index + 1} for p in there.places]
    with pytest.raises(IntegrityError, match="does not lead to the sealed root"):
        check_proof(change(there, places=moved), row_id(4), key)
    forged = [p.model_dump() | {"leaf": there.leaf} for p in absent.places]
    with pytest.raises(IntegrityError, match="does not lead to the sealed root"):
        check_proof(change(absent, places=forged), row_id(5), key)
    for places in ((), absent.places[:1], absent.places[1:]):
        with pytest.raises(IntegrityError, match="nor those of its neighbours"):
            check_proof(change(there, places=places), row_id(4), key)
    payload = json.loads(json.dumps(there.statement))
    payload["payload"] = payload["payload"][:-8] + "AAAAAAA="
    with pytest.raises(IntegrityError, match="signature is not by the key"):
        check_proof(change(there, statement=payload), row_id(4), key)


def test_a_proof_by_another_home_is_refused(home, tmp_path, monkeypatch):
    seal([1])
    key = public_key()
    monkeypatch.setenv("TUNETRAIL_HOME", str(tmp_path / "other"))
    seal([1, 2])
    with pytest.raises(IntegrityError, match="signature is not by the key"):
        check_proof(prove("run", row_id(2)), row_id(2), key)


def test_a_run_that_is_not_there_proves_nothing(home):
    seal([1])
    with pytest.raises(ConfigError, match="no sealed run other"):
        prove("other", row_id(1))
