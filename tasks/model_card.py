"""Stage 11: the model card, written in every end of a run."""

from __future__ import annotations

from sft_core.documents.card import card_figures, render_card
from sft_core.reports import RunRecord, StageReport
from sft_core.store import put_bytes
from tasks.stage import stage


@stage("model_card", cached=False)
def write_model_card(record: RunRecord) -> StageReport:
    """`README.md` in the hub's format, with the plots beside it."""
    card = put_bytes(render_card(record).encode("utf-8"), ".md")
    return StageReport(stage="model_card", figures=card_figures(record), files={"README": card})
