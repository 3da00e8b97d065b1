"""Stage 10: base against tuned on the same held-out rows."""

from __future__ import annotations

from collections.abc import Iterator

from sft_core.config import EvaluationConfig, ModelConfig
from sft_core.documents.figures import bars
from sft_core.lineage.ledger import put_table
from sft_core.records import canonical_json
from sft_core.reports import DatasetRef, StageReport
from sft_core.store import locate, put_bytes, read_records
from tasks.stage import at_least, at_most, stage

_SCORES = ("exact_match", "rouge_l", "chrf")


@stage(
    "evaluate",
    gates=(
        at_least("loss_gain_low", "min_loss_gain"),
        at_least("exact_match_gain_low", "min_exact_match_gain"),
        at_most("subgroup_gap", "max_subgroup_gap"),
        at_most("retention_loss", "max_retention_loss"),
        at_most("bias_shift", "max_bias_shift"),
    ),
)
def evaluate(
    tokens: StageReport,
    tuned: StageReport,
    test: DatasetRef,
    model: ModelConfig,
    config: EvaluationConfig,
    seed: int,
) -> StageReport:
    """Per-item scores are kept as evidence; answers may quote records and stay in the home."""
    import pyarrow.parquet as pq

    from sft_core.base_model import check_base
    from sft_core.evaluation.comparison import Item, compare
    from sft_core.tokenization import end_of_turn_id, prompt_ids
    from sft_core.training.adapters import base_view, load_tuned

    folder = check_base(tuned.models["base"])
    network, tokenizer = load_tuned(folder, locate(tuned.models["adapter"]), model)
    template = locate(tokens.files["chat_template"]).read_text(encoding="utf-8")

    def items() -> Iterator[Item]:
        records = {record.row: record for record in read_records(test)}
        rows = pq.read_table(locate(tokens.private["test"])).to_pylist()
        last = {row["row"]: place for place, row in enumerate(rows)}
        for place, row in enumerate(rows):
            record = records[row["row"]]
            # Of a row's examples the last one holds the last answer; the others are scored alone.
            asked = record.prompt() if last[row["row"]] == place else []
            yield Item(
                row=record.row,
                row_id=record.row_id,
                prompt_ids=prompt_ids(asked, tokenizer, template) if asked else [],
                input_ids=row["input_ids"],
                labels=row["labels"],
                reference=record.completion(),
                groups={k: None if v is None else str(v) for k, v in record.meta.items()},
                cluster=record.cluster,
            )

    found = compare(
        network,
        tokenizer,
        list(items()),
        config,
        base=base_view(network, folder, model),
        seed=seed,
        eos_ids={end_of_turn_id(tokenizer, template)},
    )
    scores = [name for name in _SCORES if f"base_{name}" in found.metrics]
    sides = {
        side: [found.metrics[f"{side}_{name}"] for name in scores] for side in ("base", "tuned")
    }
    return StageReport(
        stage="evaluate",
        metrics=found.metrics,
        not_measured=found.not_measured,
        tables=found.tables,
        figures={"results": put_bytes(bars(scores, sides, x="score on held-out rows"), ".png")},
        files={name: put_table(table) for name, table in found.evidence.items()},
        private={"predictions": put_bytes(canonical_json(found.predictions), ".json")},
    )
