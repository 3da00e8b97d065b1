"""Tampering with anything that was sealed is found, and the command says what and where."""

import json
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from sft_core.errors import IntegrityError
from sft_core.lineage.chain import append, read_chain
from sft_core.lineage.signing import public_key
from sft_core.lineage.verification import verify
from tests.conftest import ROOT

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def sealed(prefect_server, tmp_path_factory):
    """A home with one audited run, to be copied by each test."""
    from flows.audit import audit
    from sft_core.config.file import load_config

    home = tmp_path_factory.mktemp("sealed") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNETRAIL_HOME", str(home))
        run_id = audit(load_config(ROOT / "examples/triage/demo.yaml"))
    return home, run_id


@pytest.fixture
def copy(sealed, home):
    """A copied evidence folder, without MLflow's and Prefect's parts."""
    source, run_id = sealed
    parts = shutil.ignore_patterns("mlflow.db", "mlartifacts", "prefect", "logs")
    shutil.copytree(source, home, ignore=parts)
    return home, run_id


def evidence(home):
    statement = read_chain(public_key())[-1]
    return [home / item["path"] for item in statement.predicate["evidence"]]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_an_untouched_copy_verifies(copy):
    _, run_id = copy
    lines = list(verify(run_id))
    assert any("ledger lines follow" in line for line in lines)
    assert any("every number in README.md" in line for line in lines)


def test_every_single_sealed_file_is_guarded(copy):
    home, run_id = copy
    paths = evidence(home)
    assert {path.parent.name for path in paths} >= {"store", "quarantine", run_id}
    for path in paths:
        before = path.read_bytes()
        flip(path)
        with pytest.raises(IntegrityError, match=path.name):
            list(verify(run_id))
        path.unlink()
        with pytest.raises(IntegrityError, match=f"{path.name}: missing"):
            list(verify(run_id))
        path.write_bytes(before)
    assert list(verify(run_id))


@pytest.mark.parametrize("name", ["00000001.json", "head.json"])
def test_a_changed_statement_or_head_is_found(copy, name):
    home, run_id = copy
    path = home / "chain" / name
    envelope = json.loads(path.read_text())
    envelope["payload"] = envelope["payload"][:40] + "AAAA" + envelope["payload"][44:]
    path.write_text(json.dumps(envelope))
    with pytest.raises(IntegrityError, match=name):
        list(verify(run_id))


def test_a_cut_tail_is_found(copy):
    home, _ = copy
    append("note", [("a", "0" * 64)], {"text": "second"})
    (home / "chain" / "00000002.json").unlink()
    with pytest.raises(IntegrityError, match="signed for 2 statements"):
        list(verify())


def test_a_missing_statement_in_the_middle_is_found(copy):
    home, _ = copy
    append("note", [("a", "0" * 64)], {"text": "second"})
    append("note", [("a", "0" * 64)], {"text": "third"})
    (home / "chain" / "00000002.json").unlink()
    with pytest.raises(IntegrityError, match="stands where 2 is expected"):
        list(verify())


def test_a_forged_statement_is_neither_verified_nor_covered_by_a_new_head(copy, tmp_path):
    home, _ = copy
    forged = home / "chain" / "00000002.json"
    shutil.copy(home / "chain" / "00000001.json", forged)
    with pytest.raises(IntegrityError):
        list(verify())
    with pytest.raises(IntegrityError, match="Nothing was added"):
        append("note", [("a", "0" * 64)], {"text": "on top"})


def test_another_key_does_not_verify(copy, tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = Ed25519PrivateKey.generate().public_key()
    path = tmp_path / "other.pem"
    path.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(IntegrityError, match="signature is not by the key"):
        list(verify(None, path))


def test_the_command_exits_with_6_and_names_the_file(copy, capsys):
    from flows.cli import main

    home, run_id = copy
    assert main(["verify", run_id]) == 0
    ledger = home / "runs" / run_id / "ledger.parquet"
    table = pq.read_table(ledger)
    pq.write_table(table.slice(1), ledger)
    assert main(["verify", run_id]) == 6
    assert f"runs/{run_id}/ledger.parquet: SHA-256 is" in capsys.readouterr().err


def test_the_key_is_readable_by_the_owner_alone(copy):
    home, _ = copy
    assert oct((home / "keys" / "signing.pem").stat().st_mode & 0o777) == "0o600"


def test_a_deleted_head_does_not_let_a_cut_chain_be_signed_again(copy):
    home, _ = copy
    append("note", [("a", "0" * 64)], {"text": "second"})
    append("note", [("a", "0" * 64)], {"text": "third"})
    (home / "chain" / "00000003.json").unlink()
    (home / "chain" / "head.json").unlink()
    with pytest.raises(IntegrityError, match="Nothing was added"):
        append("note", [("a", "0" * 64)], {"text": "on top"})


def test_a_lost_public_key_is_made_again_from_the_private_one(copy):
    home, _ = copy
    before = (home / "keys" / "public.pem").read_bytes()
    (home / "keys" / "public.pem").unlink()
    append("note", [("a", "0" * 64)], {"text": "second"})
    assert (home / "keys" / "public.pem").read_bytes() == before
    assert len(read_chain(public_key())) == 2


def test_an_auditor_needs_no_mlflow_only_the_copy_and_the_public_key(copy, tmp_path):
    home, run_id = copy
    key = shutil.move(home / "keys" / "public.pem", tmp_path / "public.pem")
    shutil.rmtree(home / "keys")
    script = (
        "import sys; sys.modules.update(mlflow=None, prefect=None);"  # as if not installed
        "from flows.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "verify", run_id, "--public-key", str(key)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "every number in README.md" in done.stdout
    assert "MLflow: is not installed here, NOT COMPARED" in done.stdout
    assert not (home / "keys").exists()
