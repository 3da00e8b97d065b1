"""Does attribution name the rows that an answer hangs on? Against BM25, TracIn and random.

    python -m benchmarks.attribution [--quick] [--json FILE] [--subsets 50] [--seeds 3]

Rows are those that the demo trains on, drawn at random; queries are rows that it holds out, with
the answers that stand there. All trainings are the pipeline's own, on the demo's base.

Linear datamodeling score: models are trained on random halves of the rows, each half several times
with other seeds, whose losses are averaged. A method gives each row a score for each query; the sum
over the rows of a half predicts the loss of the query after that half. The score is Spearman's
correlation of prediction and loss over the halves, averaged over queries, with a 95 % bootstrap
interval over queries. `ceiling` is the score that the true mean loss of each half would have: the
losses at hand are those of a few seeds.

Removal: for some queries the rows with the highest scores are taken out, and the model is trained
anew; told is by how much the query's loss rises over that of all rows, in nats.

Source: Ilyas et al. (2022), Datamodels, section 3; Park et al. (2023), TRAK, section 2.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a busy neighbour costs less
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from benchmarks.harness import arguments, publish

if TYPE_CHECKING:
    from sft_core.records import Record

ROOT = Path(__file__).parents[1]
NUM_ROWS = 240
NUM_QUERIES = 40
EPOCHS = 5
NUM_RESAMPLES = 10_000
REMOVED = 24
REMOVAL_QUERIES = 8
METHODS = ("TuneTrail", "without Adam", "TracIn", "BM25", "random")


def main() -> None:
    """Both measures of all methods, in one table."""
    args = arguments(
        __doc__ or "",
        subsets={"type": int, "help": "halves of the rows"},
        seeds={"type": int, "help": "trainings a half"},
    )
    num_subsets = args.subsets or (6 if args.quick else 50)
    num_seeds = args.seeds or (2 if args.quick else 3)
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNETRAIL_HOME"] = home
        lab = Lab()
        scores = lab.scores()
        halves, losses = lab.halves(num_subsets, num_seeds)
        removal = lab.removal(scores, 2 if args.quick else REMOVAL_QUERIES, num_seeds)
    found = {method: lds(scores[method], halves, losses.mean(1)) for method in METHODS}
    results = []
    for method in METHODS:
        low, high = interval(found[method])
        results.append(
            {
                "method": method,
                "LDS": float(found[method].mean()),
                "low": low,
                "high": high,
                f"loss after {REMOVED} rows are removed, nats": removal[method],
            }
        )
    ratios = {
        f"LDS over {m}": results[0]["LDS"] / results[METHODS.index(m)]["LDS"]
        for m in ("TracIn", "BM25")
    }
    low, high = interval(found["TuneTrail"] - found["BM25"])
    ratios |= {"LDS minus BM25's, low": low, "LDS minus BM25's, high": high}
    publish(args, results, ratios | {"ceiling": ceiling(losses)})


def lds(scores: Any, halves: Any, losses: Any) -> Any:
    """Spearman's correlation of each query: (queries, rows), (halves, rows), (halves, queries)."""
    from scipy.stats import spearmanr

    predicted = -(halves @ scores.T)
    return np.array(
        [spearmanr(predicted[:, q], losses[:, q]).statistic for q in range(losses.shape[1])]
    )


def ceiling(losses: Any) -> float:
    """Root of the reliability of the mean over seeds of losses (halves, seeds, queries).

    NaN of a single seed. Source: Spearman (1910) and Brown (1910), from the mean correlation of two
    seeds.
    """
    from scipy.stats import spearmanr

    num_seeds = losses.shape[1]
    if num_seeds == 1:
        return math.nan
    agreement = np.mean(
        [
            spearmanr(of_query[:, one], of_query[:, other]).statistic
            for of_query in losses.transpose(2, 0, 1)
            for one, other in combinations(range(num_seeds), 2)
        ]
    )
    return float(np.sqrt(num_seeds * agreement / (1 + (num_seeds - 1) * agreement)))


def interval(values: Any) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (NUM_RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


class Lab:
    """Rows, queries, and trainings on some of the rows."""

    def __init__(self, num_rows: int = NUM_ROWS, epochs: float = EPOCHS) -> None:
        from sft_core.base_model import load_tokenizer, resolve_base
        from sft_core.config import DEMO, TrainingConfig
        from sft_core.store import read_records
        from sft_core.tokenization import chat_template

        os.chdir(ROOT)  # the demo names its files from there
        splits = _demo_rows()
        rng = np.random.default_rng(0)
        train, test = (list(read_records(splits[name])) for name in ("train", "test"))
        self.rows = [train[i] for i in sorted(rng.choice(len(train), num_rows, replace=False))]
        chosen = rng.choice(len(test), NUM_QUERIES, replace=False)
        self.queries = [test[i] for i in sorted(chosen)]
        self.model = DEMO.model
        self.config = TrainingConfig(save_steps=None, num_train_epochs=epochs)
        self.base, self.ref = resolve_base(self.model)
        self.tokenizer = load_tokenizer(self.base, self.model)
        self.template = chat_template(self.tokenizer, DEMO.tokenization)
        self.row_tokens, self.query_tokens = self._tokens(self.rows), self._tokens(self.queries)

    def _tokens(self, records: Sequence[Record]) -> Any:
        from sft_core.attribution.gradients import Rows
        from sft_core.tokenization import tokenize_records

        found = [e for _, e in tokenize_records(records, self.tokenizer, self.template, 512)]
        ids, labels = [e.input_ids for e in found], [e.labels for e in found]
        return Rows(ids, labels, range(len(found)))

    def train(self, chosen: Sequence[int], seed: int, folder: Path, num_snapshots: int = 0) -> Any:
        """A training on some of the rows; files lie in the folder."""
        from sft_core.token_file import save_tokens
        from sft_core.tokenization import tokenize_records
        from sft_core.training.trainer import train_adapter

        path = folder / "train.parquet"
        records = [self.rows[i] for i in chosen]
        save_tokens(tokenize_records(records, self.tokenizer, self.template, 512), path)
        return train_adapter(
            self.base,
            path,
            None,
            self.config.model_copy(update={"num_snapshots": num_snapshots}),
            self.model,
            chat_template=self.template,
            seed=seed,
            output=folder / "work",
        )

    def losses(self, chosen: Sequence[int], seed: int) -> Any:
        """Nats of each query's answer after a training on some of the rows."""
        from sft_core.evaluation.likelihood import label_likelihood
        from sft_core.training.adapters import load_tuned

        with tempfile.TemporaryDirectory() as folder:
            trained = self.train(chosen, seed, Path(folder))
            network, _ = load_tuned(self.base, trained.adapter, self.model)
        asked = self.query_tokens
        return label_likelihood(network, asked.input_ids, asked.labels).nll

    def halves(self, num_subsets: int, num_seeds: int) -> tuple[Any, Any]:
        """Which rows are in each half (halves, rows), and losses (halves, seeds, queries)."""
        rng = np.random.default_rng(1)
        masks = np.zeros((num_subsets, len(self.rows)))
        losses = np.zeros((num_subsets, num_seeds, len(self.queries)))
        for half, mask in enumerate(masks):
            chosen = sorted(rng.choice(len(self.rows), len(self.rows) // 2, replace=False))
            mask[chosen] = 1.0
            for seed in range(num_seeds):
                losses[half, seed] = self.losses(chosen, 1_000 * (half + 1) + seed)
            print(f"half {half + 1} of {num_subsets}", file=sys.stderr, flush=True)
        return masks, losses

    def removal(self, scores: dict[str, Any], num_queries: int, num_seeds: int) -> dict[str, float]:
        """Mean rise of a query's loss once the rows that a method scores highest are gone."""
        everything = range(len(self.rows))
        seeds = range(num_seeds)
        whole = np.mean([self.losses(everything, seed) for seed in seeds], axis=0)
        rises: dict[str, list[float]] = {method: [] for method in scores}
        for query in range(num_queries):
            for method, found in scores.items():
                gone = set(np.argsort(-found[query])[:REMOVED].tolist())
                kept = [i for i in everything if i not in gone]
                after = np.mean([self.losses(kept, seed)[query] for seed in seeds])
                rises[method].append(float(after - whole[query]))
            print(f"removal {query + 1} of {num_queries}", file=sys.stderr, flush=True)
        return {method: float(np.mean(found)) for method, found in rises.items()}

    def scores(self) -> dict[str, Any]:
        """Scores (queries, rows) of each method, those by gradients from one and the same training.

        `without Adam` is ours without the second moment; TracIn takes the gradients as they are.
        """
        with tempfile.TemporaryDirectory() as folder:
            network, snapshots = self._trained(Path(folder))
            found = (
                self._tunetrail(network, snapshots),
                self._products(network, snapshots, cosine=True),
                self._products(network, snapshots, cosine=False),
                self._bm25(),
                np.random.default_rng(2).normal(size=(len(self.queries), len(self.rows))),
            )
        return dict(zip(METHODS, found, strict=True))

    def _tunetrail(self, network: Any, snapshots: list[Path]) -> Any:
        """As the product does it."""
        from sft_core.attribution.gradients import features
        from sft_core.config import DEMO

        dim = DEMO.attribution.projection_dim
        rows, queries = (
            features(network, snapshots, tokens, projection_dim=dim, seed=0)
            for tokens in (self.row_tokens, self.query_tokens)
        )
        return queries @ rows.T

    def _products(self, network: Any, snapshots: list[Path], *, cosine: bool) -> Any:
        """Products, or cosines, of the plain gradients by learning rate, unprojected."""
        from sft_core.attribution.gradients import row_gradients
        from sft_core.training.snapshots import Snapshot

        total = np.zeros((len(self.queries), len(self.rows)))
        for path in snapshots:
            snapshot = Snapshot.read(path)
            network.load_state_dict(snapshot.weights, strict=False)
            rows, queries = (
                _in_order(row_gradients(network, tokens.input_ids, tokens.labels))
                for tokens in (self.row_tokens, self.query_tokens)
            )
            products = queries @ rows.T
            if cosine:
                lengths = [np.linalg.norm(found, axis=1) for found in (queries, rows)]
                products /= np.outer(*lengths)
            total += snapshot.learning_rate * products
        return total

    def _trained(self, folder: Path) -> tuple[Any, list[Path]]:
        """A network, and the snapshots of a training on all rows."""
        from sft_core.attribution.network import trained_network

        trained = self.train(range(len(self.rows)), 0, folder, self.config.num_snapshots)
        network = trained_network(
            self.ref, self.model, self.config, seed=0, initial=folder / "initial"
        )
        return network, list(trained.snapshots)

    def _bm25(self) -> Any:
        """Scores of the text of a query, answer included, by the words of each row.

        Source: Robertson and Zaragoza (2009), The probabilistic relevance framework, section 3.4;
        k1 1.2 and b 0.75, as usual.
        """
        rows = [Counter(record.text().lower().split()) for record in self.rows]
        lengths = np.array([row.total() for row in rows])
        num_with = Counter(word for row in rows for word in row)
        scores = np.zeros((len(self.queries), len(rows)))
        for place, query in enumerate(self.queries):
            for word in set(query.text().lower().split()) & num_with.keys():
                counts = np.array([row[word] for row in rows])
                rarity = math.log(1 + (len(rows) - num_with[word] + 0.5) / (num_with[word] + 0.5))
                longer = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
                scores[place] += rarity * counts * 2.2 / (counts + longer)
        return scores


def _in_order(batches: Any) -> Any:
    """Gradients (examples, weights) of all batches, by the places of the examples."""
    found = [
        (place, row)
        for places, rows in batches
        for place, row in zip(places, rows.numpy(), strict=True)
    ]
    return np.stack([row for _, row in sorted(found, key=lambda pair: pair[0])])


def _demo_rows() -> Any:
    """The demo's splits, as its data half makes them."""
    from sft_core.config import DEMO
    from tasks.contamination import decontaminate
    from tasks.deduplication import deduplicate
    from tasks.ingestion import ingest
    from tasks.permission import permit
    from tasks.privacy import protect
    from tasks.splitting import split
    from tasks.validation import validate

    raw = ingest.body(DEMO.ingest)
    usable = permit.body(raw.data, raw.files["source_rows"], DEMO.terms)
    valid = validate.body(usable.data, DEMO.validation)
    safe = protect.body(valid.data, DEMO.privacy)
    unique = deduplicate.body(safe.data, DEMO.dedup)
    splits = split.body(unique.data, DEMO.split).datasets
    clean = decontaminate.body(splits, DEMO.contamination)
    return splits | {"train": clean.data}


if __name__ == "__main__":
    main()
