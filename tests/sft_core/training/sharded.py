"""A worker that shares weights out on CPUs, which torch can and accelerate does on GPUs alone.

So that FSDP is run where there is no GPU, accelerate is told that there is one for each process.
"""

from __future__ import annotations

from typing import Any

from accelerate.state import AcceleratorState, DistributedType, PartialState

from sft_core.training import worker

_init = AcceleratorState.__init__


def _pretend(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
    PartialState(cpu=True, backend="gloo")
    if not AcceleratorState._shared_state:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    _init(self, *args, **kwargs)


AcceleratorState.__init__ = _pretend
worker.main()
