"""The witness: signed statements outside MLflow, each holding the digest of the one before it.

A statement is an in-toto Statement v1 in a DSSE envelope, signed with Ed25519 over canonical JSON
(RFC 8785). A signed head holds the length and the last digest, so a cut-off tail is noticed. The
local key proves integrity and possession of the key, not when something was signed. An old head put
back together with the old files is noticed only by a copy of a later statement that is kept
elsewhere, such as the one that every run writes to MLflow.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from filelock import FileLock
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from sft_core.errors import IntegrityError
from sft_core.reports import FileRef
from sft_core.store import home, writing

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_STATEMENT_PAYLOAD = "application/vnd.in-toto+json"
_HEAD_PAYLOAD = "application/vnd.tunetrail.head+json"
_FIRST = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One link: its file, the digest of the file, and the statement inside."""

    path: Path
    sha256: str
    statement: dict[str, Any]

    @property
    def predicate(self) -> dict[str, Any]:
        """What the statement says."""
        predicate: dict[str, Any] = self.statement["predicate"]
        return predicate


def _folder() -> Path:
    return home() / "chain"


def signing_key() -> CryptoSigner:
    """The home's key; made on first use, readable by the owner alone."""
    folder = home() / "keys"
    path = folder / "signing.pem"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / "lock"):
            if not path.exists():
                _write(path, CryptoSigner.generate_ed25519().private_bytes)
            signer = CryptoSigner(load_pem_private_key(path.read_bytes(), None))
            if not (folder / "public.pem").exists():
                public = signer.public_key._crypto_key()
                pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                _write(folder / "public.pem", pem)
    return signer


def public_key(path: Path | None = None) -> SSlibKey:
    """A public key in PEM form; by default the home's own.

    Raises:
        IntegrityError: there is none, or it cannot be read.
    """
    path = path or home() / "keys" / "public.pem"
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{path}: no readable public key. Name one with --public-key."
        ) from error


def append(kind: str, subjects: Sequence[tuple[str, str]], predicate: dict[str, Any]) -> FileRef:
    """Sign a statement and put it at the end of the chain; safe with several processes at once.

    Args:
        kind: what it is about (`plan`, `run`); becomes the predicate type.
        subjects: names and SHA-256 of what the statement is made about.
        predicate: what it says; JSON values, no NaN.
    """
    signer = signing_key()
    folder = _folder()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / "lock"):
            paths = _paths()
            _check_tail(paths, signer.public_key)
            statement = {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": n, "digest": {"sha256": d}} for n, d in subjects],
                "predicateType": f"urn:tunetrail:{kind}:v1",
                "predicate": predicate
                | {
                    "sequence": len(paths) + 1,
                    "previous": _sha256(paths[-1]) if paths else _FIRST,
                },
            }
            path = folder / f"{len(paths) + 1:08d}.json"
            _write(path, _signed(signer, _STATEMENT_PAYLOAD, statement))
            head = {"size": len(paths) + 1, "last": _sha256(path)}
            _write(folder / "head.json", _signed(signer, _HEAD_PAYLOAD, head))
    return FileRef(path=f"chain/{path.name}", sha256=head["last"])


def _check_tail(paths: list[Path], key: SSlibKey) -> None:
    """Refuse to sign a new head over statements that the last head does not cover.

    One statement beyond the head is let through if it is signed and follows: a crash between the
    two writes of `append` leaves that behind.
    """
    head_path = _folder() / "head.json"
    head: dict[str, Any] = {"size": 0, "last": _FIRST}
    if head_path.exists():
        head = _opened(head_path, key, _HEAD_PAYLOAD)
    if len(paths) == head["size"] + 1 and paths:
        last = _opened(paths[-1], key, _STATEMENT_PAYLOAD)["predicate"]["previous"]
    else:
        last = _sha256(paths[-1]) if paths else _FIRST
    if head["last"] != last or len(paths) not in (head["size"], head["size"] + 1):
        raise IntegrityError(
            f"chain/head.json: signed for {head['size']} statements, found {len(paths)}. Nothing "
            "was added; run `tunetrail verify --all` to see the first difference."
        )


def read_chain(key: SSlibKey) -> list[Entry]:
    """All statements in order, each checked.

    Raises:
        IntegrityError: a statement or the head is missing, unreadable, wrongly signed, out of
            place, or does not hold the digest of the one before it. The message names the first.
    """
    entries: list[Entry] = []
    previous = _FIRST
    for number, path in enumerate(_paths(), start=1):
        statement = _opened(path, key, _STATEMENT_PAYLOAD)
        predicate = statement["predicate"]
        if path.name != f"{number:08d}.json" or predicate["sequence"] != number:
            raise IntegrityError(
                f"chain/{path.name}: statement {predicate['sequence']} stands where "
                f"{number} is expected. One is missing or out of order."
            )
        if predicate["previous"] != previous:
            raise IntegrityError(
                f"chain/{path.name}: names {predicate['previous']} as the statement before it, "
                f"found {previous}."
            )
        previous = _sha256(path)
        entries.append(Entry(path, previous, statement))
    head_path = _folder() / "head.json"
    if not entries and not head_path.exists():
        return []
    head = _opened(head_path, key, _HEAD_PAYLOAD)
    if head != {"size": len(entries), "last": previous}:
        raise IntegrityError(
            f"chain/head.json: signed for {head['size']} statements ending in {head['last']}, "
            f"found {len(entries)} ending in {previous}."
        )
    return entries


def _paths() -> list[Path]:
    return sorted(_folder().glob("[0-9]*.json"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _signed(signer: CryptoSigner, payload_type: str, content: dict[str, Any]) -> bytes:
    envelope = Envelope(rfc8785.dumps(content), payload_type, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), indent=1).encode()


def _opened(path: Path, key: SSlibKey, payload_type: str) -> dict[str, Any]:
    """Payload of a signed file."""
    name = f"chain/{path.name}"
    try:
        envelope = Envelope.from_dict(json.loads(path.read_bytes()))
        envelope.verify([key], threshold=1)
        content: dict[str, Any] = json.loads(envelope.payload)
    except FileNotFoundError as error:
        raise IntegrityError(f"{name}: missing.") from error
    except VerificationError as error:
        raise IntegrityError(f"{name}: its signature is not by the key {key.keyid}.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{name}: not a readable signed statement.") from error
    if envelope.payload_type != payload_type:
        raise IntegrityError(f"{name}: is of type {envelope.payload_type}, not {payload_type}.")
    return content


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or none: temporary name, flush to disk, rename."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
