"""What `tunetrail explain` answers: the training rows behind an answer."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sft_core.config import PipelineConfig
from sft_core.errors import ConfigError
from sft_core.lineage.membership import prove
from sft_core.lineage.tracing import sealed_run
from sft_core.records import Message, Record
from sft_core.reports import FileRef, RunRecord, StageReport
from sft_core.store import check, locate

Explanation = dict[str, Any]
"""JSON values: what `explain --json` prints."""

_log = logging.getLogger("tunetrail")


def explain(run_id: str, prompt: str | None, output: str, top: int) -> Explanation:
    """The `top` rows that pushed most to an answer, and those that pushed most away from it.

    Everything is read from what the run sealed, and compared with its digests.

    Raises:
        ConfigError: the run cannot answer, or is asked in a way in which it was not trained.
        IntegrityError: what it sealed is gone or was changed.
    """
    if top < 1:
        raise ConfigError(f"explain: --top is {top}, at least 1.")
    run = sealed_run(run_id)
    if run is None:
        raise ConfigError(f"explain: no sealed run {run_id}. See `tunetrail verify` for all runs.")
    tokens, tuned = (_report(run, name) for name in ("tokenize", "train"))
    attributed = run.report("attribute")
    if attributed is None:
        raise ConfigError(
            f"explain: run {run_id} took no gradients of its rows. Set attribution.enabled: true "
            "and run its config again: all that it did before comes from the cache."
        )
    if not attributed.private:
        [reason] = attributed.not_measured.values()
        raise ConfigError(f"explain: run {run_id} has no gradients of its rows: {reason}")
    for ref in attributed.private.values():
        check(ref)
    _log.info("explain: taking the gradients of the answer")
    return _explanation(run, attributed, tokens, tuned, prompt, output, top)


def _report(run: RunRecord, stage: str) -> StageReport:
    report = run.report(stage)
    if report is None:
        raise ConfigError(
            f"explain: run {run.run_id} has no stage {stage}. Explain a run that trained a model."
        )
    return report


def _explanation(
    run: RunRecord,
    attributed: StageReport,
    tokens: StageReport,
    tuned: StageReport,
    prompt: str | None,
    output: str,
    top: int,
) -> Explanation:
    import pyarrow.parquet as pq

    from sft_core.attribution.gradients import features
    from sft_core.attribution.influence import from_table, influences, strongest
    from sft_core.attribution.network import trained_network

    config = PipelineConfig.model_validate(run.config)
    rows, stored = from_table(pq.read_table(locate(attributed.private["features"])))
    records = _records(attributed.private["rows"])
    plain_text = next(iter(records.values())).is_plain_text
    snapshots = [locate(r) for n, r in attributed.private.items() if n.startswith("step-")]
    with tempfile.TemporaryDirectory() as temporary:
        network = trained_network(
            tuned.models["base"],
            config.model,
            config.training,
            seed=config.seed,
            initial=Path(temporary),
        )
        asked = _asked(network, tokens, tuned, config, prompt, output, plain_text=plain_text)
        query = features(
            network,
            snapshots,
            asked,
            projection_dim=stored.shape[1],
            seed=config.seed,
        )
    scores = influences(query, stored)
    ledger = pq.read_table(locate(_report(run, "account").files["ledger"]))

    def told(place: int) -> dict[str, Any]:
        record = records[rows[place]]
        line = ledger.slice(record.row, 1).to_pylist()[0]
        return {
            "influence": float(scores[place]),
            "row_id": record.row_id,
            "proof": [p.model_dump() for p in prove(run.run_id, record.row_id).places],
            "source": line["source"],
            "line": line["line"],
            "annotator": record.meta.get("annotator"),
            "messages": record.messages,
        }

    towards, away = strongest(scores, top)
    return {
        "run_id": run.run_id,
        "num_rows": len(rows),
        "towards": [told(place) for place in towards],
        "away": [told(place) for place in away],
    }


def _records(ref: FileRef) -> dict[int, Record]:
    with locate(ref).open("rb") as file:
        found = map(Record.from_json, file)
        return {record.row: record for record in found}


def _asked(
    network: Any,
    tokens: StageReport,
    tuned: StageReport,
    config: PipelineConfig,
    prompt: str | None,
    output: str,
    *,
    plain_text: bool,
) -> Any:
    """Prompt and answer in tokens, as in training."""
    from sft_core.attribution.gradients import Rows
    from sft_core.base_model import load_tokenizer, locate_base
    from sft_core.layout import CAUSAL, SEQ2SEQ, encode_text
    from sft_core.tokenization import encode, start_ids

    if plain_text != (prompt is None):
        what = (
            "plain text: leave --prompt out" if plain_text else "prompts and answers: give --prompt"
        )
        raise ConfigError(f"explain: the model was trained on {what}.")
    tokenizer = load_tokenizer(locate_base(tuned.models["base"]), config.model)
    longest = int(tokens.metrics["max_length"])
    if prompt is None:
        ids = tokenizer(output, add_special_tokens=False, verbose=False)["input_ids"]
        examples = list(encode_text(ids, start_ids(tokenizer), tokenizer.eos_token_id, longest))
    else:
        messages: list[Message] = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": output},
        ]
        layout = SEQ2SEQ if network.config.is_encoder_decoder else CAUSAL
        template = locate(tokens.files["chat_template"]).read_text(encoding="utf-8")
        examples = [encode(messages, tokenizer, template, longest, layout)]
    if examples[0].num_trained == 0:
        raise ConfigError(
            f"explain: the prompt fills the {longest:,} tokens that were trained on. Shorten it."
        )
    return Rows(
        [example.input_ids for example in examples],
        [example.labels for example in examples],
        [0] * len(examples),
    )


def describe(found: Explanation) -> str:
    """For people: the rows of each sign, the strongest first, with their text."""
    return "\n".join(_lines(found))


def _lines(found: Explanation) -> Iterator[str]:
    yield f"{found['num_rows']:,} training rows of run {found['run_id']}"
    for side, title in (("towards", "pushed to this answer"), ("away", "pushed away from it")):
        yield ""
        yield f"{title}:" if found[side] else f"{title}: none"
        for row in found[side]:
            annotator = f"  annotator {row['annotator']}" if row["annotator"] is not None else ""
            place = f"{row['source']}:{row['line']}"
            yield f"{row['influence']:+.4g}  {place}  {row['row_id'][:12]}{annotator}"
            for message in row["messages"]:
                yield f"    {message['role']}: " + message["content"].replace("\n", "\n      ")
