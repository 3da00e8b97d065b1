"""What every benchmark shares: its command line, a fresh process a measurement, one report."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

Row = Mapping[str, str | int | float | None]


def arguments(description: str, **options: Any) -> argparse.Namespace:
    """`--quick` for a run of a minute, `--json` for the raw figures, and options of one's own.

    An option is the keyword arguments of `add_argument`, under its name.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--json", type=Path, help="write the raw figures here")
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()


def measure(function: Callable[..., Mapping[str, Any]], *args: Any) -> dict[str, Any]:
    """What a function returns from a fresh process, with its wall seconds and its peak memory.

    `peak_mib` is the highest sum of the resident sets of that process and its children, looked at
    four times a second, imports included.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (worker,) = multiprocessing.active_children()
        answer = pool.apply_async(_timed, (function, args))
        peak = 0
        while not answer.ready():
            peak = max(peak, _resident_bytes(psutil.Process(worker.pid)))
            answer.wait(0.25)
        return dict(answer.get()) | {"peak_mib": peak / 2**20}


def _resident_bytes(process: psutil.Process) -> int:
    size = 0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            size += member.memory_info().rss
    return size


def _timed(function: Callable[..., Mapping[str, Any]], args: Sequence[Any]) -> dict[str, Any]:
    started = time.monotonic()
    result = function(*args)
    return {"seconds": time.monotonic() - started} | dict(result)


def publish(args: argparse.Namespace, results: Sequence[Row], ratios: Mapping[str, float]) -> None:
    """Print a Markdown table and write the JSON; a ratio above 1 is ours ahead."""
    machine = _machine()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    columns = list(dict.fromkeys(key for row in results for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_shown(row.get(column)) for column in columns] for row in results]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.3g}")
    if args.json:
        document = {
            "machine": machine,
            "commit": _commit(),
            "results": [dict(row) for row in results],
            "ratios": dict(ratios),
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _shown(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _machine() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{pages / 2**30:.0f} GiB",
        "python": platform.python_version(),
    }


def _commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
