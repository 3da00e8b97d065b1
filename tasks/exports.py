"""After stage 11: the record in formats that other people's tools read, in every end of a run.

The runner also sends the OpenLineage events, when the run has ended, to where OpenLineage's own
settings say.
"""

from __future__ import annotations

from sft_core.exports.annex_iv import annex_iv_metrics, render_annex_iv
from sft_core.exports.hub_results import render_hub_results
from sft_core.exports.lineage_events import render_lineage_events
from sft_core.exports.ml_bom import render_ml_bom
from sft_core.reports import RunRecord, StageReport
from sft_core.store import put_bytes
from tasks.stage import stage


@stage("exports", cached=False)
def write_exports(record: RunRecord) -> StageReport:
    """CycloneDX bill of materials, OpenLineage events, Annex IV by points, the hub's results."""
    return StageReport(
        stage="exports",
        metrics=annex_iv_metrics(record),
        files={
            "ml_bom.cdx": put_bytes(render_ml_bom(record).encode(), ".json"),
            "openlineage": put_bytes(render_lineage_events(record).encode(), ".jsonl"),
            "annex_iv": put_bytes(render_annex_iv(record).encode(), ".md"),
            "eval_results": put_bytes(render_hub_results(record).encode(), ".yaml"),
        },
    )
