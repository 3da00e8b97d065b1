"""Starts the processes of a training, and says which one died. Imports nothing that trains."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import uuid
from pathlib import Path

import psutil
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from sft_core.new_process import how_ended


def launch(request: Path) -> None:
    """Start the processes and wait for their end; says which one died."""
    values = json.loads(request.read_text(encoding="utf-8"))
    num_processes = values["config"]["num_processes"]
    # Rows and gradients stay on this machine.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    os.environ["OMP_NUM_THREADS"] = str(values["num_threads"])
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "sft_core.training.worker", str(request))
    except ChildFailedError as error:
        # Where one is killed the others fail as well, because it no longer answers, or are ended.
        first = error.get_first_failure()
        killed = [f for f in error.failures.items() if f[1].exitcode == -signal.SIGKILL]
        rank, failure = next(iter(killed), first)
        ended = f"process {rank} of 0 to {num_processes - 1} {how_ended(failure.exitcode)}"
        sys.stdout.write(json.dumps({"ended": ended}) + "\n")
        raise SystemExit(1) from error


def _loopback() -> str:
    """Name of the network interface that leads back to this machine."""
    interfaces = psutil.net_if_addrs().items()
    own = (socket.AF_INET, "127.0.0.1")
    return next(str(n) for n, found in interfaces if own in [(a.family, a.address) for a in found])


if __name__ == "__main__":
    launch(Path(sys.argv[1]))
