"""What code and environment a run was made with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

_CODE = Path(__file__).parents[2]


def code_provenance() -> dict[str, str]:
    """Git commit of the project and SHA-256 of its uncommitted changes.

    `changes_sha256` is empty for a clean checkout; outside a checkout both read "not measured".
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": "not measured", "changes_sha256": "not measured"}
    changes = _git("diff", "HEAD") or b""
    new = _git("ls-files", "--others", "--exclude-standard") or b""
    for name in new.decode(errors="replace").splitlines():
        path = _CODE / name
        if path.is_file():
            changes += name.encode() + hashlib.sha256(path.read_bytes()).digest()
    digest = hashlib.sha256(changes).hexdigest() if changes else ""
    return {"commit": commit.decode().strip(), "changes_sha256": digest}


def _git(*args: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(_CODE), *args], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def environment_provenance() -> dict[str, object]:
    """Interpreter, platform, device, and every installed package with version and digest.

    The digest is of the package's RECORD, which lists the SHA-256 of each of its files; None for
    one that has none.
    """
    packages = {
        each.metadata["Name"].lower(): {
            "version": each.version,
            "record_sha256": _record_sha256(each),
        }
        for each in importlib.metadata.distributions()
        if each.metadata["Name"]
    }
    return {
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": _device(),
        "packages": dict(sorted(packages.items())),
    }


def _record_sha256(package: importlib.metadata.Distribution) -> str | None:
    record = package.read_text("RECORD")
    return hashlib.sha256(record.encode()).hexdigest() if record else None


def _device() -> str:
    """What the model was trained on; a run that imported no torch trained nothing."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"
