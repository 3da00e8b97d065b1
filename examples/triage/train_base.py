"""Train the demo's base model from scratch: a tiny Llama-shaped model, in about a minute.

    python -m examples.triage.train_base

It reads plain English, lines from a clinic's handbook, and chats in which a referral note (of
another seed than the fine-tuning data) is answered with a part of the body and the kind of signs.
So it brings a pretrained model's share: the words, the markup and how to read a note. The clinic's
own answer is left to fine-tuning: the base has never seen it, and its exact match is zero. One
thread and one seed: the same machine and packages give the same bytes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.triage.notes import COMPLAINTS, DAYS, SEXES, TOWNS, URGENCIES, Case, write_case
from sft_core.store import sha256_file

BASE = Path(__file__).parent / "base"
SEED = 7
NUM_STEPS = 500
BATCH_SIZE = 16
LEARNING_RATE = 3e-3
VOCABULARY = 2_000
CONTEXT_TOKENS = 512
CHAT_RATE, ENGLISH_RATE, CLINIC_RATE = 0.7, 0.18, 0.12
ANSWER_WEIGHT = 8.0
"""Weight of a token of an answer in the loss; without it the random numbers in the notes drown what
there is to learn."""

PAD, START, END, DOCUMENT = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_PEOPLE = (
    *("the farmer", "the teacher", "my neighbour", "a tall stranger", "the old captain"),
    *("the baker", "our guide", "the children", "a student", "the judge", "her cousin"),
    *("his brother", "the engineer", "the painter", "a sailor", "the committee"),
)
_DID = (
    *("carried", "found", "sold", "painted", "repaired", "forgot", "described", "borrowed"),
    *("noticed", "collected", "measured", "cleaned", "followed", "opened", "wanted", "kept"),
)
_THINGS = (
    *("a wooden box", "the old bridge", "a long letter", "some bread", "the garden gate"),
    *("a map of the country", "two books", "the kitchen table", "a small boat", "the window"),
    *("several photographs", "a bag of apples", "the radio", "the broken clock", "a warm coat"),
)
_WHERE = (
    *("in the village", "near the river", "at the station", "behind the school"),
    *("on the hill", "by the sea", "in the market", "under the trees", "across the street"),
    *("in the city library", "at the edge of the forest", "outside the museum"),
)
_WHEN = (
    *("before the rain began", "last summer", "early in the morning", "after the war"),
    *("when the train was late", "on a cold evening", "every Sunday", "during the holiday"),
    *("many years ago", "as soon as the sun came up", "while everyone was asleep"),
)
_NATURE = (
    *("the sun", "water", "the moon", "wind", "a river", "snow", "the sea", "a forest"),
    *("the climate", "light", "a volcano", "an island", "the soil", "a storm"),
)
_DOES = (
    *("changes slowly over time", "gives energy to living things", "moves from north to south"),
    *("covers most of the land in winter", "shapes the coast", "is important for trade"),
    *("can be seen from far away", "keeps the air clean", "feeds many kinds of birds and fish"),
)
_ENGLISH = (
    "{Person} {did} {thing} {where} {when}.",
    "{When}, {person} {did} {thing}.",
    "{Nature} {does}, and {nature2} {does2}.",
    "It is said that {nature} {does}.",
    "{Person} thought that {person2} had {did} {thing} {where}.",
    "Why did {person} want {thing}? Because {person2} {did} it {when}.",
    "There was {thing} {where}, but {person} never {did} it.",
    "People who live {where} know that {nature} {does}.",
    "Most of the {number} houses {where} were built {when}.",
    "In {year}, {person} {did} {thing}, and {person2} {did2} {thing2}.",
)


def english(rng: random.Random, sentences: int = 4) -> str:
    """A short passage of plain English."""
    passage = []
    for _ in range(sentences):
        pairs = {
            "person": rng.sample(_PEOPLE, 2),
            "did": rng.sample(_DID, 2),
            "thing": rng.sample(_THINGS, 2),
            "nature": rng.sample(_NATURE, 2),
            "does": rng.sample(_DOES, 2),
        }
        slots = {name: first for name, (first, _) in pairs.items()}
        slots |= {f"{name}2": second for name, (_, second) in pairs.items()}
        slots |= {"where": rng.choice(_WHERE), "when": rng.choice(_WHEN)}
        slots |= {name.capitalize(): text[0].upper() + text[1:] for name, text in slots.items()}
        slots |= {"number": str(rng.randint(2, 900)), "year": str(rng.randint(1700, 2020))}
        passage.append(rng.choice(_ENGLISH).format(**slots))
    return " ".join(passage)


_PARTS = {
    "cardiology": "the heart",
    "neurology": "the nerves",
    "gastroenterology": "the gut",
    "respiratory": "the lungs",
    "dermatology": "the skin",
    "orthopaedics": "the joints",
    "endocrinology": "the glands",
}
_SIGNS = {"urgent": "bad", "soon": "mixed", "routine": "good"}
_CLINIC = (
    "The {specialty} clinic in {town} opens on {day}s.",
    "Patients with {complaint} are seen by {specialty}.",
    "Complaint: {complaint}\nSpecialty: {specialty}",
    "Finding: {finding}\nUrgency: {urgency}",
    "When a letter tells of {finding}, the visit is {urgency}.",
)


def clinic(rng: random.Random) -> str:
    """A few lines from a handbook: which words belong together, never in an answer's form."""
    lines = []
    for _ in range(5):
        case = _case(rng)
        slots = {"specialty": case.specialty, "complaint": case.complaint}
        slots |= {"urgency": case.urgency, "finding": case.finding}
        slots |= {"town": rng.choice(TOWNS), "day": rng.choice(DAYS)}
        line = rng.choice(_CLINIC).format(**slots)
        lines.append(line[0].upper() + line[1:])
    return "\n".join(lines)


def _case(rng: random.Random) -> Case:
    """A case whose note is often shorter than those of the demo, hence easier to learn from."""
    specialty, urgency = rng.choice(tuple(COMPLAINTS)), rng.choice(URGENCIES)
    return write_case(rng, rng.choice(SEXES), specialty, urgency, rng.randrange(4))


def _turn(role: str, text: str) -> str:
    return f"{START}{role}\n{text}{END}\n"


def chat(rng: random.Random) -> str:
    """A chat about a note or some English; none of its answers is a triage answer."""
    if rng.random() < 0.2:
        text = english(rng, 3)
        sentences = text.removesuffix(".").split(". ")
        place, answer = rng.choice((("first", sentences[0]), ("last", sentences[-1])))
        return _turn("user", f"{text} Repeat the {place} sentence.") + _turn("assistant", answer)
    case = _case(rng)
    summary = f"Part: {_PARTS[case.specialty]}\nSigns: {_SIGNS[case.urgency]}"
    return _turn("user", case.note) + _turn("assistant", summary)


def documents(rng: random.Random, count: int) -> list[str]:
    """What the model reads, in random order."""
    kinds = rng.choices((chat, english, clinic), (CHAT_RATE, ENGLISH_RATE, CLINIC_RATE), k=count)
    return [write(rng) + DOCUMENT for write in kinds]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that any text can be written and read back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, START, END, DOCUMENT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        bos_token=DOCUMENT,
        extra_special_tokens=[START],
        model_max_length=CONTEXT_TOKENS,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def batches(rows: list[list[int]], rng: random.Random) -> Iterator[list[list[int]]]:
    """Batches of rows of like length, in random order, so that little is padded."""
    window = BATCH_SIZE * 8
    for start in range(0, len(rows), window):
        near = sorted(rows[start : start + window], key=len)
        groups = [near[i : i + BATCH_SIZE] for i in range(0, len(near), BATCH_SIZE)]
        rng.shuffle(groups)
        yield from groups


def weighted_loss(
    model: LlamaForCausalLM, batch: list[list[int]], start: int, answer_weight: float
) -> torch.Tensor:
    """Mean loss in nats a token, the answers of chats (after the last `start`) weighted."""
    length = max(map(len, batch))
    tokens = torch.zeros(len(batch), length, dtype=torch.long)
    weights = torch.zeros(len(batch), length)
    for i, row in enumerate(batch):
        tokens[i, : len(row)] = torch.tensor(row)
        weights[i, : len(row)] = 1.0
        if start in row:
            role = len(row) - row[::-1].index(start)
            weights[i, role + 2 : len(row)] = answer_weight  # after "assistant" and a newline
    logits = model(input_ids=tokens).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    weight = weights[:, 1:].flatten()
    return (losses * weight).sum() / weight.sum()


def train_model(rows: list[list[int]], tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Fit a new model to rows of tokens, each read once."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=160,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=True,
            initializer_range=0.06,  # the usual 0.02 is too small for this width: it learns late
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=NUM_STEPS, pct_start=0.1
    )
    start = tokenizer.convert_tokens_to_ids(START)
    model.train()
    for step, batch in enumerate(batches(rows, random.Random(SEED)), 1):
        loss = weighted_loss(model, batch, start, ANSWER_WEIGHT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step:4d} of {NUM_STEPS}  loss {loss.item():.3f}", flush=True)
    return model.eval()


CARD = """\
---
language: en
license: cc0-1.0
library_name: transformers
pipeline_tag: text-generation
tags:
- synthetic
- demo
---

# Triage demo base

A Llama-shaped model of {millions:.2f} million parameters, small enough to fine-tune on two CPU
cores in seconds. It stands in for a pretrained model in the TuneTrail demo and is of no use
outside it.

| | |
| --- | --- |
| architecture | {layers} layers, {width} wide, {heads} heads, tied embeddings |
| context | {context} tokens |
| tokenizer | byte-level BPE, {vocabulary:,} entries, trained on the same text; ChatML markup |
| weights | float32, safetensors |
| SHA-256 of `model.safetensors` | `{sha256}` |

## Data

{documents:,} documents ({tokens:,} tokens) from a seeded generator: {chat:.0%} chats, most of
which answer a referral note with a part of the body and the kind of signs; {english:.0%} plain
English from templates; {clinic:.0%} lines from an invented clinic handbook, which say what belongs
to what specialty and urgency. No chat is answered with a specialty or an urgency, and the notes
are drawn with another seed than those of the fine-tuning data. No text of a real person is in it.

## Recipe

One pass, {steps} steps of {batch} documents, AdamW, peak learning rate {rate:g}, one cycle,
float32, one thread; answers weigh {weight:g} times as much as other tokens. Loss on {held_out} new
documents: {loss:.3f} nats a token, unweighted. `python -m examples.triage.train_base` builds it
again; another version of torch or another kind of processor may give other last bits, and so
another digest.

## Limits

It knows some hundred words and a few sentence patterns. It knows no medicine and must not be used
for any decision about a patient. Its bias was not measured.
"""


def build(folder: Path = BASE) -> None:
    """Train tokenizer and model and write them, with their card, into a folder."""
    torch.set_num_threads(1)
    texts = documents(random.Random(SEED), NUM_STEPS * BATCH_SIZE)
    tokenizer = train_tokenizer(texts)
    rows: list[list[int]] = tokenizer(texts).input_ids
    num_tokens = sum(map(len, rows))
    print(f"{len(texts):,} documents, {num_tokens:,} tokens", flush=True)
    model = train_model(rows, tokenizer)
    held_out = tokenizer(documents(random.Random(SEED + 1), 200)).input_ids
    with torch.no_grad():
        loss = weighted_loss(model, held_out, tokenizer.convert_tokens_to_ids(START), 1.0)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    sha256 = sha256_file(folder / "model.safetensors")
    card = CARD.format(
        millions=model.num_parameters() / 1e6,
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        heads=model.config.num_attention_heads,
        context=CONTEXT_TOKENS,
        vocabulary=len(tokenizer),
        sha256=sha256,
        documents=len(texts),
        tokens=num_tokens,
        chat=CHAT_RATE,
        english=ENGLISH_RATE,
        clinic=CLINIC_RATE,
        steps=NUM_STEPS,
        batch=BATCH_SIZE,
        rate=LEARNING_RATE,
        weight=ANSWER_WEIGHT,
        held_out=len(held_out),
        loss=loss.item(),
    )
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    print(f"{folder}: {model.num_parameters():,} parameters, SHA-256 {sha256}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the demo's base model from scratch.")
    parser.add_argument("--folder", type=Path, default=BASE, help="where to write it")
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
