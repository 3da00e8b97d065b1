"""Memory of the device that trains: what this process took at most, and what it could take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        *("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
)
"""Folder, limit, use, and what of the use is cached files that give way, of both versions."""


def reset_peak() -> None:
    """Let the peak begin anew; where the system cannot, it stays that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            _CLEAR.write_text("5")


def peak_bytes() -> int:
    """Most since `reset_peak`: reserved CUDA memory, or resident memory on a CPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    if _STATUS.exists():
        line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """What this process could hold now, what it holds included; a container's limit counts."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]) + int(torch.cuda.memory_reserved())
    own = int(psutil.Process().memory_info().rss)
    free = [int(psutil.virtual_memory().available)]
    for name, limit, usage, cached in _CGROUPS:
        folder = Path(name)
        with suppress(OSError, ValueError):  # there is none, or it reads "max"
            used = int((folder / usage).read_text())
            statistics = dict(x.split() for x in (folder / "memory.stat").read_text().splitlines())
            free.append(int((folder / limit).read_text()) - used + int(statistics[cached]))
    return own + max(0, min(free))
