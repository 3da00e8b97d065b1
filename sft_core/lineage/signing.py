"""The key that signs the chain, and envelopes made and opened with it.

A file is a DSSE envelope around canonical JSON (RFC 8785), signed with Ed25519.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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

from sft_core.errors import ConfigError, IntegrityError
from sft_core.store import home, writing

KEY_VARIABLE = "TUNETRAIL_SIGNING_KEY"
_NEXT = "signing.next.pem"


def signing_key() -> CryptoSigner:
    """The key that `TUNETRAIL_SIGNING_KEY` names, or the home's own, made on first use.

    Raises:
        ConfigError: the variable names no readable Ed25519 private key.
    """
    named = os.environ.get(KEY_VARIABLE)
    folder = home() / "keys"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / "lock"):
            path = Path(named) if named else folder / "signing.pem"
            if not named and not path.exists():
                write_whole(path, CryptoSigner.generate_ed25519().private_bytes)
            signer = _read_private(path)
            if not (folder / "public.pem").exists():
                write_whole(folder / "public.pem", public_pem(signer).encode())
    return signer


def new_home_key(given: Path | None) -> CryptoSigner:
    """The next key: the given one, or one that waits beside the home's until it is signed for."""
    if given is not None:
        return _read_private(given)
    path = home() / "keys" / _NEXT
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, CryptoSigner.generate_ed25519().private_bytes)
    return _read_private(path)


def take_home_key(public: str) -> None:
    """Use the key that waits, if it is the one that was signed for; also after a crash."""
    path = home() / "keys" / _NEXT
    if path.exists() and public_pem(_read_private(path)) == public:
        os.replace(path, path.with_name("signing.pem"))


def _read_private(path: Path) -> CryptoSigner:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: no readable private key ({type(error).__name__}). Expected Ed25519 in PEM "
            f"form without a passphrase; {KEY_VARIABLE} names the file."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: is not an Ed25519 key, which is what signs the chain.")
    return CryptoSigner(key)


def public_pem(signer: CryptoSigner) -> str:
    """The public half, as `openssl` reads it."""
    public = signer.public_key._crypto_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_key(path: Path | None = None) -> SSlibKey:
    """A public key in PEM form; by default the one that the home's chain begins with.

    Raises:
        IntegrityError: there is none, or it cannot be read.
    """
    path = path or home() / "keys" / "public.pem"
    try:
        return key_of_pem(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{path}: no readable public key. Name one with --public-key."
        ) from error


def key_of_pem(pem: bytes) -> SSlibKey:
    """A public key from the PEM form."""
    return SSlibKey.from_crypto(load_pem_public_key(pem))


def signed(signer: CryptoSigner, payload_type: str, content: dict[str, Any]) -> bytes:
    """An envelope around JSON values, on one line."""
    envelope = Envelope(rfc8785.dumps(content), payload_type, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict()).encode()


def opened(data: bytes, name: str, key: SSlibKey, payload_type: str) -> dict[str, Any]:
    """What an envelope holds; `name` says in errors where it lies.

    Raises:
        IntegrityError: it cannot be read, is signed by another key or changed, or is of another
            type.
    """
    try:
        envelope = Envelope.from_dict(json.loads(data))
        envelope.verify([key], threshold=1)
        content: dict[str, Any] = json.loads(envelope.payload)
    except VerificationError as error:
        raise IntegrityError(f"{name}: its signature is not by the key {key.keyid}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{name}: not a readable signed statement.") from error
    if envelope.payload_type != payload_type:
        raise IntegrityError(f"{name}: is of type {envelope.payload_type}, not {payload_type}.")
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Write a whole file or none, readable by the owner alone."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
