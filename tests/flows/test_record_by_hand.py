"""What docs/record.md shows is enough: openssl and jq find what was changed."""

import re
import shutil
import subprocess

import pytest

from sft_core.lineage.chain import append, rotate_key
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("openssl") and shutil.which("jq")), reason="needs openssl and jq"
    ),
]


@pytest.fixture
def evidence(home):
    """A chain in the form of a run, with a rotated key; its first public key lies beside it."""
    from sft_core.store import put_bytes, put_tree

    folder = home.parent / "adapter"
    folder.mkdir()
    (folder / "b.txt").write_text("weights")
    (folder / "a b.txt").write_text("config")
    refs = [put_bytes(b"a report", ".json"), put_tree(folder, "base")]
    kept = [{"path": ref.path, "sha256": ref.sha256} for ref in refs]
    append("plan", [], {"policy": {}})
    shutil.copy(home / "keys" / "public.pem", home.parent / "key.pem")
    rotate_key()
    append("run", [], {"run_id": "one", "evidence": kept})
    return home, refs


def check(home):
    (script,) = re.findall(
        r"```bash\n(set -euo.*?)```", (ROOT / "docs/record.md").read_text(), re.DOTALL
    )
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


def test_an_untouched_copy_holds(evidence):
    home, _ = evidence
    shutil.rmtree(home / "keys")
    assert check(home) == (0, "all statements and their evidence hold")


@pytest.mark.parametrize("which", [0, 1])
def test_changed_evidence_is_found(evidence, which):
    home, refs = evidence
    path = home / refs[which].path
    target = path / "b.txt" if path.is_dir() else path
    target.write_text("changed")
    assert check(home) == (6, f"{refs[which].path}: digest")


def test_a_changed_statement_and_a_missing_one_are_found(evidence):
    home, _ = evidence
    path = home / "chain" / "00000003.json"
    said = path.read_text()
    path.write_text(said.replace('"payload": "e', '"payload": "f', 1))
    assert check(home) == (6, "chain/00000003.json: signature")
    path.unlink()
    assert check(home) == (6, "head")
    path.write_text(said)
    assert check(home)[0] == 0
    (home / "chain" / "00000001.json").unlink()
    assert check(home) == (6, "chain/00000002.json: order")
