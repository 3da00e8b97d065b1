"""After stage 9: what each training row did to the weights, for `tunetrail explain` to ask."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sft_core.config import AttributionConfig, ModelConfig, TrainingConfig
from sft_core.errors import ConfigError
from sft_core.lineage.ledger import put_table
from sft_core.reports import DatasetRef, FileRef, StageReport
from sft_core.store import check, locate, read_records
from tasks.stage import stage


@stage("attribute")
def attribute(
    rows: DatasetRef,
    tokens: StageReport,
    tuned: StageReport,
    model: ModelConfig,
    training: TrainingConfig,
    config: AttributionConfig,
    seed: int,
) -> StageReport:
    """Features of every training row; with the snapshots of the training they stay in the home.

    Beside them lie the rows as they were trained on, so that an answer can quote them.
    """
    import pyarrow.parquet as pq

    from sft_core.attribution.gradients import Rows, features
    from sft_core.attribution.influence import to_table
    from sft_core.attribution.network import trained_network

    snapshots = {name: ref for name, ref in tuned.private.items() if name.startswith("step-")}
    if not snapshots:
        reason = (
            "no snapshot of the training was kept: that needs LoRA without fsdp, and "
            "training.num_snapshots above 0"
        )
        return StageReport(stage="attribute", not_measured={"num_attributed_rows": reason})
    for ref in snapshots.values():
        check(ref)
    trained = pq.read_table(locate(tokens.private["train"]))
    row_ids = [(record.row, record.row_id) for record in read_records(rows)]
    places = {row: place for place, (row, _) in enumerate(row_ids)}
    examples = Rows(
        trained["input_ids"].to_pylist(),
        trained["labels"].to_pylist(),
        [places[row] for row in trained["row"].to_pylist()],
    )
    with tempfile.TemporaryDirectory() as temporary:
        network = trained_network(
            tuned.models["base"], model, training, seed=seed, initial=Path(temporary)
        )
        try:
            found = features(
                network,
                [locate(ref) for ref in snapshots.values()],
                examples,
                projection_dim=config.projection_dim,
                seed=seed,
            )
        except ConfigError as error:
            return StageReport(stage="attribute", not_measured={"num_attributed_rows": str(error)})
    table = put_table(to_table(row_ids, found))
    return StageReport(
        stage="attribute",
        metrics={
            "num_attributed_rows": float(len(found)),
            "num_snapshots": float(len(snapshots)),
            "features_bytes": float(locate(table).stat().st_size),
        },
        private={
            "features": table,
            "rows": FileRef(path=rows.path, sha256=rows.sha256),
            **snapshots,
        },
    )
