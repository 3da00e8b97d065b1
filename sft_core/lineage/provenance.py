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
    """Interpreter, platform, and every installed package with its version."""
    found = [distribution.metadata for distribution in importlib.metadata.distributions()]
    packages = {each["Name"].lower(): each["Version"] for each in found if each["Name"]}
    return {
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": dict(sorted(packages.items())),
    }
