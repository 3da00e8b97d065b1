"""Proofs that a row was, or was not, in a model's training set, which show no other row.

The leaves of the tree are SHA-256 digests of row ids, in order and each once. A row that is there
has a path to the root that the run's statement holds; for one that is not, two leaves next to each
other have one, and it would stand between them.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from sft_core.errors import ConfigError, IntegrityError
from sft_core.lineage.chain import KEY, STATEMENT_PAYLOAD, read_chain
from sft_core.lineage.merkle import inclusion_path, leaf_hash, merkle_root, root_by_path
from sft_core.lineage.signing import key_of_pem, opened, public_key
from sft_core.lineage.tracing import RUN, sealed_run
from sft_core.reports import Frozen, RunRecord
from sft_core.store import check, locate


class Place(Frozen):
    """A leaf and the way from it to the root; all hashes in hexadecimal digits."""

    index: int
    leaf: str
    path: tuple[str, ...]


class Proof(Frozen):
    """About one row and one run; it is checked with a public key alone."""

    leaf: str
    """SHA-256 of the row id that is asked about."""
    places: tuple[Place, ...]
    """The row's own, or those of its neighbours: none where the set is empty, one at its ends."""
    statement: dict[str, Any]
    """The signed statement of the run."""
    keys: tuple[dict[str, Any], ...]
    """The signed statements by which older keys handed over to the one that signed the run's."""


def training_set(ledger: pa.Table) -> dict[str, Any]:
    """Size and root of the rows that train, as the run's statement holds them."""
    leaves = _leaves(ledger)
    return {"size": len(leaves), "root": _root(leaves)}


def _leaves(ledger: pa.Table) -> list[bytes]:
    trained = ledger.filter(pc.equal(ledger["fate"], "train"))["row_id"].unique().to_pylist()
    return sorted(_leaf(row_id) for row_id in trained)


def _leaf(row_id: str) -> bytes:
    return hashlib.sha256(row_id.encode()).digest()


def _root(leaves: list[bytes]) -> str:
    return merkle_root([leaf_hash(leaf) for leaf in leaves]).hex()


def prove(run_id: str, row_id: str) -> Proof:
    """Whether a row, by its whole row id, was in the training set of a sealed run.

    Raises:
        ConfigError: the chain has no such run, or it trained nothing.
        IntegrityError: chain or ledger do not hold.
    """
    record = sealed_run(run_id)
    if record is None or record.report("train") is None:
        raise ConfigError(f"prove: no sealed run {run_id} has trained a model.")
    entries = read_chain(public_key())
    (*_, run) = (e for e in entries if _is_run(e.statement, run_id))
    before = entries[: entries.index(run)]
    leaves, leaf = _leaves(_ledger(record)), _leaf(row_id)
    found = bisect.bisect_left(leaves, leaf)
    is_there = leaves[found : found + 1] == [leaf]
    indices = [found] if is_there else [i for i in (found - 1, found) if 0 <= i < len(leaves)]
    hashes = [leaf_hash(each) for each in leaves]
    return Proof(
        leaf=leaf.hex(),
        places=tuple(
            Place(
                index=index,
                leaf=leaves[index].hex(),
                path=tuple(node.hex() for node in inclusion_path(hashes, index)),
            )
            for index in indices
        ),
        statement=_envelope(run.path),
        keys=tuple(_envelope(e.path) for e in before if e.statement["predicateType"] == KEY),
    )


def _is_run(statement: dict[str, Any], run_id: str) -> bool:
    return bool(statement["predicateType"] == RUN and statement["predicate"]["run_id"] == run_id)


def _envelope(path: Path) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(path.read_bytes())
    return envelope


def _ledger(record: RunRecord) -> pa.Table:
    report = record.report("account")
    assert report is not None
    check(report.files["ledger"])
    return pq.read_table(locate(report.files["ledger"]))


def read_proof(path: Path) -> Proof:
    """A proof from a file.

    Raises:
        IntegrityError: it holds no proof.
    """
    try:
        return Proof.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"{path}: holds no readable proof.") from error


def check_proof(proof: Proof, row_id: str, key: SSlibKey) -> tuple[str, bool]:
    """The run that a proof is about, and whether the row was in its training set.

    Args:
        proof: from whoever ran the pipeline.
        row_id: the row that one asks about, 64 hexadecimal digits.
        key: the public key that the chain begins with.

    Raises:
        IntegrityError: the proof is about another row, or does not hold.
    """
    for envelope in proof.keys:
        handed = opened(json.dumps(envelope).encode(), "proof: keys", key, STATEMENT_PAYLOAD)
        key = key_of_pem(handed["predicate"]["public_key"].encode())
    data = json.dumps(proof.statement).encode()
    predicate = opened(data, "proof: statement", key, STATEMENT_PAYLOAD)["predicate"]
    if proof.leaf != _leaf(row_id).hex():
        raise IntegrityError(f"proof: is about another row than {row_id}.")
    sealed = predicate.get("training_set") or {}
    size, root = sealed.get("size"), sealed.get("root")
    if size is None:
        raise IntegrityError("proof: its statement is of a run that trained nothing.")
    for place in proof.places:
        leaf, path = leaf_hash(bytes.fromhex(place.leaf)), [bytes.fromhex(n) for n in place.path]
        led_to = root_by_path(leaf, place.index, size, path)
        if led_to is None or led_to.hex() != root:
            raise IntegrityError(
                f"proof: the path of leaf {place.index} does not lead to the sealed root {root}."
            )
    return str(predicate["run_id"]), _stands_there(proof, size)


def _stands_there(proof: Proof, size: int) -> bool:
    """True for the row's own place; False where its neighbours leave it none."""
    if [place.leaf for place in proof.places] == [proof.leaf]:
        return True
    below = [p for p in proof.places if p.leaf < proof.leaf]
    above = [p for p in proof.places if p.leaf > proof.leaf]
    ends = [below[0].index if below else -1, above[0].index if above else size]
    if len(below) <= 1 and len(above) <= 1 and ends[0] + 1 == ends[1]:
        return False
    raise IntegrityError("proof: its places are neither the row's own nor those of its neighbours.")
