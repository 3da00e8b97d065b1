"""After stage 10: what the shift of a harmless training looks like, on the same rows."""

from __future__ import annotations

import logging

from sft_core.config import BiasConfig, FairnessConfig, TokenizationConfig, TrainingConfig
from sft_core.lineage.ledger import put_table
from sft_core.reports import DatasetRef, StageReport
from sft_core.store import read_records, record_file
from tasks.contest import Contest
from tasks.fairness import swapper_of
from tasks.stage import stage
from tasks.tokenization import tokenize
from tasks.training import fit

_log = logging.getLogger("tunetrail")


@stage("null")
def measure_null(
    contest: Contest,
    rows: dict[str, DatasetRef],
    tokenization: TokenizationConfig,
    training: TrainingConfig,
    config: FairnessConfig,
    bias: BiasConfig,
) -> StageReport:
    """What each of `config.null_runs` harmless models makes of the pairs of the fairness stage.

    Each is trained like the run's, on the same rows with the groups in them swapped at random, and
    with a seed of its own. The file `null` has a column of log-likelihood ratios a model.
    """
    import numpy as np
    import pyarrow as pa

    from sft_core.evaluation.fairness.pairs import probe_pairs
    from sft_core.evaluation.fairness.probe import log_ratios
    from sft_core.evaluation.fairness.shift import NULL_COLUMN

    pairs, swapper = probe_pairs(config, seed=contest.seed), swapper_of(bias)
    columns = {}
    for number in range(1, config.null_runs + 1):
        seed = contest.seed + number
        rng = np.random.default_rng(seed)
        with record_file("quarantine") as file:
            for record in read_records(rows["train"]):
                file.add(swapper.scramble(record, rng))
        tokens = tokenize.body(
            {**rows, "train": file.ref},
            contest.tuned.models["base"],
            contest.model,
            tokenization,
            training.num_virtual_tokens,
        )
        tuned, _ = fit(tokens, contest.model, training, seed)
        harmless = contest.model_copy(update={"tuned": tuned}).open().tuned
        columns[NULL_COLUMN.format(number)] = log_ratios(harmless, pairs)
        _log.info("null: harmless run %s of %s is measured", number, config.null_runs)
    metrics = {"num_null_runs": float(config.null_runs)}
    return StageReport(stage="null", metrics=metrics, files={"null": put_table(pa.table(columns))})
