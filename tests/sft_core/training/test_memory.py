"""What a process can still hold, in a container as well."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from sft_core.training import memory


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at the processor's memory")
def test_cached_files_of_a_container_do_not_count_as_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 2**20
    (tmp_path / "max").write_text(f"{80 * mib}\n")
    (tmp_path / "current").write_text(f"{70 * mib}\n")
    (tmp_path / "memory.stat").write_text(f"anon {5 * mib}\ninactive_file {60 * mib}\n")
    cgroup = (str(tmp_path), "max", "current", "inactive_file")
    monkeypatch.setattr(memory, "_CGROUPS", (cgroup,))
    own = psutil.Process().memory_info().rss
    # 80 are allowed, 10 are in use for good
    assert memory.available_bytes() - own == pytest.approx(70 * mib, abs=8 * mib)
