"""Stage 7: who is in the training text, and what goes together with whom."""

from __future__ import annotations

from data_checks.representation import audit_representation
from sft_core.config import BiasConfig
from sft_core.figures import bars
from sft_core.reports import DatasetRef, StageReport
from sft_core.store import put_bytes, read_records
from tasks.stage import at_most, stage


@stage("audit_bias", gates=(at_most("label_disparity", "max_label_disparity"),))
def audit_bias(data: DatasetRef, config: BiasConfig, seed: int) -> StageReport:
    """Mentions of groups, and significant differences of labels between groups."""
    found = audit_representation(read_records(data), config, seed)
    rates = {
        name.removeprefix("mention_rate_").replace("_", " "): value
        for name, value in found.metrics.items()
        if name.startswith("mention_rate_") and value > 0
    }
    figures = {}
    if rates:
        plot = bars(list(rates), {"rows": list(rates.values())}, x="share of rows that mention it")
        figures["mentions"] = put_bytes(plot, ".png")
    return StageReport(
        stage="audit_bias",
        metrics=found.metrics,
        not_measured=found.not_measured,
        tables=found.tables,
        figures=figures,
    )
