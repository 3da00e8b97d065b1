"""Gradients row by row are those of autograd, and what is kept of them tells who taught what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sft_core.attribution.gradients import Projection, Rows, features, row_gradients
from sft_core.attribution.influence import from_table, influences, strongest, to_table
from sft_core.base_model import load_base
from sft_core.config import LoraSection, ModelConfig, TrainingConfig
from sft_core.errors import ConfigError
from sft_core.layout import CAUSAL, SEQ2SEQ, Layout
from sft_core.records import Record
from sft_core.tokenization import tokenize_records
from sft_core.training.adapters import with_adapter
from sft_core.training.trainer import Training, train_adapter
from tests.sft_core.tiny_model import (
    CHATML,
    CONTEXT,
    byte_tokenizer,
    record,
    save_rows,
    write_base,
    write_t5,
)

CONFIG = TrainingConfig(
    num_train_epochs=20,
    per_device_train_batch_size=4,
    learning_rate=1e-2,
    logging_steps=10,
    num_snapshots=3,
    lora=LoraSection(r=4),
)
DIM = 4_096
# Six rows say that a colour is warm. One contradicts them; one speaks of a zebra.
RECORDS = [
    *(record(i, f"is {colour} warm?", "yes") for i, colour in enumerate(("red", "pink", "gold"))),
    *(
        record(3 + i, f"is {colour} cold?", "no")
        for i, colour in enumerate(("rose", "rust", "tan"))
    ),
    record(6, "is red warm?", "no"),
    record(7, "a zebra wears", "stripes"),
]
CONTRADICTION, ODD = 6, 7


def rows_of(records: list[Record], layout: Layout = CAUSAL) -> Rows:
    found = list(tokenize_records(records, byte_tokenizer(), CHATML, CONTEXT, layout))
    places = {record.row: place for place, record in enumerate(records)}
    return Rows(
        [example.input_ids for _, example in found],
        [example.labels for _, example in found],
        [places[row] for row, _ in found],
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(folder: Path, model: ModelConfig, config: TrainingConfig = CONFIG) -> Any:
    base, _ = load_base(Path(str(model.model_name_or_path)), model)
    return with_adapter(base, config, model, 7, folder / "initial")


@pytest.mark.parametrize("kind", ["causal", "sequence to sequence"])
def test_each_row_has_the_gradient_that_it_has_alone(kind: str, tmp_path: Path) -> None:
    """To rounding, in batches of rows of other lengths, with adapters that are not at zero."""
    is_causal = kind == "causal"
    write, layout = (write_base, CAUSAL) if is_causal else (write_t5, SEQ2SEQ)
    model = network(tmp_path, write(tmp_path / "base", byte_tokenizer()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    rows = rows_of(RECORDS, layout)
    found = {
        place: row
        for places, batch in row_gradients(model, rows.input_ids, rows.labels)
        for place, row in zip(places, batch, strict=True)
    }
    assert sorted(found) == list(range(len(RECORDS)))
    names = [n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    trained = [w for n in names if (w := model.get_submodule(n).weight).requires_grad]
    for place, (ids, labels) in enumerate(zip(rows.input_ids, rows.labels, strict=True)):
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        scored = labels[1:] if is_causal else labels
        total = loss * sum(label >= 0 for label in scored)  # transformers gives the mean
        alone = torch.cat([g.flatten() for g in torch.autograd.grad(total, trained)])
        assert alone.abs().max() > 0.01
        torch.testing.assert_close(found[place], alone, rtol=1e-3, atol=1e-4)


def test_a_projection_keeps_products_and_follows_from_its_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 10_000, generator=generator)
    pair[1] += pair[0]
    exact = float(pair[0] @ pair[1])
    lengths = float(pair[0].norm() * pair[1].norm())
    seen = []
    for seed in range(50):
        one, other = Projection(10_000, 1_024, (seed, 0))(pair)
        seen.append(float(one @ other))
    # The deviation of one is about lengths / sqrt(1024), that of the mean of 50 a seventh of it.
    assert abs(np.mean(seen) - exact) < 3 * lengths / 32 / 50**0.5
    assert np.std(seen) < 1.5 * lengths / 32
    again = Projection(10_000, 1_024, (3, 0))(pair)
    assert torch.equal(again, Projection(10_000, 1_024, (3, 0))(pair))
    assert not torch.equal(again, Projection(10_000, 1_024, (3, 1))(pair))


class Trained:
    """A training of the tiny base on the records, asked for its rows."""

    def __init__(self, folder: Path, config: TrainingConfig = CONFIG) -> None:
        self.folder = folder
        self.config = config
        self.model = write_base(folder / "base", byte_tokenizer())
        self.training: Training = train_adapter(
            folder / "base",
            save_rows(RECORDS, folder / "train.parquet"),
            None,
            config,
            self.model,
            chat_template=CHATML,
            seed=7,
            output=folder / "work",
        )

    def features(self, records: list[Record], seed: int = 7) -> Any:
        return features(
            network(self.folder, self.model, self.config),
            self.training.snapshots,
            rows_of(records),
            projection_dim=DIM,
            seed=seed,
        )

    def influences(self, prompt: str, answer: str) -> Any:
        return influences(self.features([record(0, prompt, answer)]), self.features(RECORDS))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def test_an_answer_that_one_odd_row_taught_names_that_row_first(trained: Trained) -> None:
    """The question shares more words with other rows than with the one that taught the answer."""
    towards, _ = strongest(trained.influences("is red warm? a zebra", "stripes"), 3)
    assert towards[0] == ODD


def test_a_row_that_contradicts_is_negative(trained: Trained) -> None:
    scores = trained.influences("is red warm?", "yes")
    towards, away = strongest(scores, 2)
    assert towards[0] == 0
    assert away[0] == CONTRADICTION
    assert scores[CONTRADICTION] < 0 < scores[0]
    other = trained.influences("is red warm?", "no")
    assert strongest(other, 1)[0] == [CONTRADICTION]
    assert other[0] < 0


def test_the_same_training_gives_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    again = Trained(tmp_path)
    assert trained.features(RECORDS).tobytes() == again.features(RECORDS).tobytes()
    other = trained.features(RECORDS, seed=8)
    assert not np.array_equal(other, trained.features(RECORDS))


def test_a_row_of_several_examples_has_the_direction_of_their_sum(trained: Trained) -> None:
    model = network(trained.folder, trained.model)
    apart = rows_of(RECORDS[:3])
    joined = Rows(apart.input_ids, apart.labels, [0, 1, 1])
    one, two = (
        features(model, trained.training.snapshots[:1], rows, projection_dim=DIM, seed=7)
        for rows in (apart, joined)
    )
    assert two.shape == (2, DIM)
    np.testing.assert_allclose(two[0], one[0], atol=1e-5)
    parts = np.linalg.lstsq(one[1:].T, two[1], rcond=None)[0]
    assert (parts > 0.1).all()
    np.testing.assert_allclose(two[1], parts @ one[1:], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(two, axis=1), 1.0, rtol=1e-5)


def test_other_trained_weights_are_refused(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"lora": LoraSection(r=4, use_dora=True)})
    model = network(tmp_path, write_base(tmp_path / "base", byte_tokenizer()), config)
    rows = rows_of(RECORDS[:1])
    with pytest.raises(ConfigError, match="belong to no linear layer of LoRA"):
        list(row_gradients(model, rows.input_ids, rows.labels))


def test_the_strongest_of_each_sign() -> None:
    scores = np.array([0.5, -2.0, 0.0, 3.0, 0.5, -1.0])
    assert strongest(scores, 3) == ([3, 0, 4], [1, 5])
    assert strongest(np.zeros(3), 3) == ([], [])


def test_the_table_holds_what_was_put_in() -> None:
    found = np.arange(6, dtype=np.float32).reshape(2, 3)
    rows, read = from_table(to_table([(4, "a"), (9, "b")], found))
    assert rows == [4, 9]
    assert np.array_equal(read, found)
