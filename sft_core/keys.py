"""The key behind pseudonyms: who has it can link a pseudonym to a name, nobody else can."""

from __future__ import annotations

import os
import secrets

from filelock import FileLock

from sft_core.store import make_home, writing

_KEY_BYTES = 32


def pseudonym_key() -> bytes:
    """The home's own key, 32 bytes; made on first use, readable by the owner alone.

    With another key the same person gets another pseudonym, so a home that loses its key can no
    longer recognise who is to be erased from older runs.
    """
    folder = make_home() / "keys"
    path = folder / "pseudonym.key"
    with writing(folder):
        folder.mkdir(exist_ok=True, mode=0o700)
        with FileLock(folder / "lock"):
            if not path.exists():
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
    return path.read_bytes()
