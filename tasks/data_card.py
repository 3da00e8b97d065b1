"""Beside stage 11: what the data is, for machines and for people, written in every end of a run."""

from __future__ import annotations

from sft_core.documents.data_card import render_croissant, render_data_sheet
from sft_core.reports import RunRecord, StageReport
from sft_core.store import put_bytes
from tasks.stage import stage


@stage("data_card", cached=False)
def write_data_card(record: RunRecord) -> StageReport:
    """`croissant.json` in the Croissant format, and `data_sheet.md`."""
    return StageReport(
        stage="data_card",
        files={
            "croissant": put_bytes(render_croissant(record).encode("utf-8"), ".json"),
            "data_sheet": put_bytes(render_data_sheet(record).encode("utf-8"), ".md"),
        },
    )
