"""The witness: signed statements outside MLflow, each holding the digest of the one before it.

A statement is an in-toto Statement v1. The signed head holds the length, the last digest and the
Merkle root of all of them, so a cut-off tail is noticed. The local key proves integrity and
possession of the key, not when something was signed. An old head put back together with the old
files is noticed only by a later head that is kept elsewhere: every run writes one to MLflow.
"""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from sft_core.errors import ConfigError, IntegrityError
from sft_core.lineage.merkle import grown, leaf_hash, root_of_peaks
from sft_core.lineage.signing import (
    KEY_VARIABLE,
    key_of_pem,
    new_home_key,
    opened,
    public_pem,
    signed,
    signing_key,
    take_home_key,
    write_whole,
)
from sft_core.reports import FileRef
from sft_core.store import home, writing

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
STATEMENT_PAYLOAD = "application/vnd.in-toto+json"
_HEAD_PAYLOAD = "application/vnd.tunetrail.head+json"
_FIRST = "0" * 64
KEY = "urn:tunetrail:key:v1"
"""Predicate type of a statement by which a key hands over to the next one."""


@dataclass(frozen=True)
class Entry:
    """One link: its file, the digest of the file, and the statement inside."""

    path: Path
    sha256: str
    statement: dict[str, Any]
    root: str
    """Merkle root of the chain up to here."""
    key: SSlibKey
    """That signed it."""

    @property
    def predicate(self) -> dict[str, Any]:
        """What the statement says."""
        predicate: dict[str, Any] = self.statement["predicate"]
        return predicate


@dataclass(frozen=True)
class Head:
    """Where a chain ends: what its owner signs anew with each statement."""

    size: int
    last: str
    """SHA-256 of the last statement's file."""
    peaks: tuple[str, ...]
    """Roots of the full trees that the chain's Merkle tree is made of; see `merkle.grown`."""

    def after(self, sha256: str) -> Head:
        """The head with one more statement."""
        peaks = grown([bytes.fromhex(p) for p in self.peaks], self.size, _leaf(sha256))
        return Head(self.size + 1, sha256, tuple(peak.hex() for peak in peaks))

    @property
    def root(self) -> str:
        """Merkle root of all statements."""
        return root_of_peaks([bytes.fromhex(peak) for peak in self.peaks]).hex()

    def to_json(self) -> dict[str, Any]:
        """What is signed."""
        return {
            "size": self.size,
            "last": self.last,
            "root": self.root,
            "peaks": list(self.peaks),
        }


EMPTY = Head(0, _FIRST, ())


def _leaf(sha256: str) -> bytes:
    return leaf_hash(bytes.fromhex(sha256))


def _folder() -> Path:
    return home() / "chain"


def head_path() -> Path:
    """The signed head."""
    return _folder() / "head.json"


def read_head(data: bytes, name: str, key: SSlibKey) -> Head:
    """The head in a signed file, also of a copy that was kept elsewhere.

    Raises:
        IntegrityError: it is not signed by the key, or its parts do not fit together.
    """
    content = opened(data, name, key, _HEAD_PAYLOAD)
    try:
        head = Head(content["size"], content["last"], tuple(content["peaks"]))
        fits = head.to_json() == content
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise IntegrityError(f"{name}: is no head of a chain.") from error
    if not fits:
        raise IntegrityError(f"{name}: its root is not the one of its peaks.")
    return head


def head_size(data: bytes) -> int:
    """How many statements a head names, whoever signed it; 0 where it cannot be read."""
    size = _said(data).get("size")
    return size if isinstance(size, int) else 0


def append(kind: str, subjects: Sequence[tuple[str, str]], predicate: dict[str, Any]) -> FileRef:
    """Sign a statement and put it at the end of the chain; safe with several processes at once.

    Args:
        kind: what it is about (`plan`, `run`); becomes the predicate type.
        subjects: names and SHA-256 of what the statement is made about.
        predicate: what it says; JSON values, no NaN.
    """
    folder = _folder()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / "lock"):
            paths = _paths()
            if paths and (handed := _statement_in(paths[-1])).get("predicateType") == KEY:
                take_home_key(handed["predicate"]["public_key"])
            return _append(signing_key(), paths, kind, subjects, predicate)


def _append(
    signer: CryptoSigner,
    paths: list[Path],
    kind: str,
    subjects: Sequence[tuple[str, str]],
    predicate: dict[str, Any],
) -> FileRef:
    before = _tail(paths, signer)
    statement = make_statement(
        f"urn:tunetrail:{kind}:v1",
        subjects,
        predicate | {"sequence": before.size + 1, "previous": before.last},
    )
    path = _folder() / f"{before.size + 1:08d}.json"
    write_whole(path, signed(signer, STATEMENT_PAYLOAD, statement))
    head = before.after(_sha256(path))
    write_whole(head_path(), signed(signer, _HEAD_PAYLOAD, head.to_json()))
    return FileRef(path=f"chain/{path.name}", sha256=head.last)


def make_statement(
    predicate_type: str, subjects: Sequence[tuple[str, str]], predicate: dict[str, Any]
) -> dict[str, Any]:
    """An in-toto Statement v1 about subjects, given by name and SHA-256."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in subjects],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def rotate_key(to: Path | None = None) -> FileRef:
    """Hand over to a new key: the key in use signs it, and signs nothing after that.

    Args:
        to: private key in PEM form, for those whose key lies outside the home; it must be the
            one that `TUNETRAIL_SIGNING_KEY` names from then on. Without it the home gets a key
            of its own making.

    Raises:
        ConfigError: `to` is missing where the key lies outside the home, or given where it does
            not.
    """
    outside = bool(os.environ.get(KEY_VARIABLE))
    if outside != (to is not None):
        raise ConfigError(
            f"rotate-key: the key in use is the one that {KEY_VARIABLE} names; give the next one "
            "with --to, and let the variable name it afterwards."
            if outside
            else f"rotate-key: the home makes its own keys; --to goes with {KEY_VARIABLE}."
        )
    new = new_home_key(to)
    said = {"public_key": public_pem(new), "signed_by": public_pem(signing_key())}
    statement = append(
        "key", [("public_key", hashlib.sha256(said["public_key"].encode()).hexdigest())], said
    )
    if not outside:
        take_home_key(said["public_key"])
    return statement


def _tail(paths: list[Path], signer: CryptoSigner) -> Head:
    """Where the chain ends; refuses to sign a new head over what the last one does not cover.

    One statement beyond the head is let through if it is signed and follows: a crash between the
    two writes of `append` leaves that behind.
    """
    last = _statement_in(paths[-1])["predicate"] if paths else {}
    key = signer.public_key
    if "signed_by" in last:  # the one before this key signed the tail
        if last["public_key"] != public_pem(signer):
            raise IntegrityError(
                f"chain/{paths[-1].name}: hands over to another key than the one in use. Nothing "
                f"was added; let {KEY_VARIABLE} name the new one."
            )
        key = key_of_pem(last["signed_by"].encode())
    head = EMPTY
    if head_path().exists():
        head = read_head(head_path().read_bytes(), "chain/head.json", key)
    if len(paths) == head.size + 1:
        statement = _opened(paths[-1], key)
        if statement["predicate"]["previous"] == head.last:
            return head.after(_sha256(paths[-1]))
    elif len(paths) == head.size and (not paths or _sha256(paths[-1]) == head.last):
        return head
    raise IntegrityError(
        f"chain/head.json: signed for {head.size} statements, found {len(paths)}. Nothing "
        "was added; run `tunetrail verify --all` to see the first difference."
    )


def read_chain(key: SSlibKey) -> list[Entry]:
    """All statements in order, each checked.

    Args:
        key: the one that the chain begins with; it signs the next one where it was rotated.

    Raises:
        IntegrityError: a statement or the head is missing, unreadable, wrongly signed, out of
            place, or does not hold the digest of the one before it. The message names the first.
    """
    entries: list[Entry] = []
    end, signed_head_by = EMPTY, key
    for number, path in enumerate(_paths(), start=1):
        statement = _opened(path, key)
        predicate = statement["predicate"]
        if path.name != f"{number:08d}.json" or predicate["sequence"] != number:
            raise IntegrityError(
                f"chain/{path.name}: statement {predicate['sequence']} stands where "
                f"{number} is expected. One is missing or out of order."
            )
        if predicate["previous"] != end.last:
            raise IntegrityError(
                f"chain/{path.name}: names {predicate['previous']} as the statement before it, "
                f"found {end.last}."
            )
        end = end.after(_sha256(path))
        entries.append(Entry(path, end.last, statement, end.root, key))
        signed_head_by = key
        if statement["predicateType"] == KEY:
            key = key_of_pem(predicate["public_key"].encode())
    if not entries and not head_path().exists():
        return []
    try:
        data = head_path().read_bytes()
    except OSError as error:
        raise IntegrityError("chain/head.json: missing.") from error
    head = read_head(data, "chain/head.json", signed_head_by)
    if head != end:
        raise IntegrityError(
            f"chain/head.json: signed for {head.size} statements ending in {head.last}, "
            f"found {end.size} ending in {end.last}."
        )
    return entries


def _paths() -> list[Path]:
    return sorted(_folder().glob("[0-9]*.json"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _opened(path: Path, key: SSlibKey) -> dict[str, Any]:
    """The statement in a file of the chain."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"chain/{path.name}: cannot be read.") from error
    return opened(data, f"chain/{path.name}", key, STATEMENT_PAYLOAD)


def _statement_in(path: Path) -> dict[str, Any]:
    """What a file says, whoever signed it."""
    return {"predicate": {}} | _said(path.read_bytes())


def _said(data: bytes) -> dict[str, Any]:
    """Payload of an envelope without a look at its signature; nothing where it cannot be read."""
    try:
        found = json.loads(b64decode(json.loads(data)["payload"]))
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
