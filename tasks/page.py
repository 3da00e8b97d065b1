"""Beside stage 11: the review page, written in every end of a run."""

from __future__ import annotations

from sft_core.documents.page import render_page
from sft_core.reports import RunRecord, StageReport
from sft_core.store import put_bytes
from tasks.stage import stage


@stage("page", cached=False)
def write_page(record: RunRecord) -> StageReport:
    """`report.html`: the whole run on one page that loads nothing."""
    page = put_bytes(render_page(record).encode("utf-8"), ".html")
    return StageReport(stage="page", files={"report": page})
