"""Write the demo's data sets and the truth about what is wrong with them.

    python -m examples.triage.generate

Every row is invented and every defect is planted on purpose, on rows that carry no other, so a
check can be held to exactly what it should find. `truth.json` names lines of the file, counted
from 1. The same seed gives the same bytes. Strings that look like secrets are put together at run
time, so that no scanner trips over this file.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_checks.overlap.splitting import split_of
from examples.triage.notes import (
    COMPLAINTS,
    SEXES,
    URGENCIES,
    WORDS,
    Case,
    Sex,
    answer,
    details,
    write_cases,
)
from sft_core.config import SplitConfig
from sft_core.records import row_id

DATA = Path(__file__).parent / "data"
SEED = 2024
NUM_PER_CELL = 67
"""Cases per specialty, urgency and sex: 67 x 7 x 3 x 2 = 2,814 rows before copies and leaks."""
NOISE_RATE = 0.07
SKEW_RATE = 0.85
"""Share of urgent women whom the skewed set calls `soon`."""
NUM_MALFORMED = 7
"""Rows of each malformed kind."""
NUM_SECRETS = 4
"""Rows of each kind of secret."""
NUM_IDENTIFIED = 30
"""Rows for each of the five kinds of identifier; some rows carry a name besides."""
NUM_EXACT, NUM_NEAR = 90, 90
NUM_LEAKS, NUM_BENCHMARK, NUM_BENCHMARK_LEAKS = 14, 12, 6
SITES = ("north", "south", "harbour")

FIRST_NAMES: dict[Sex, tuple[str, ...]] = {
    "female": ("Alice", "Hannah", "Marta", "Nadia", "Olive", "Priya", "Renée", "Susan", "Wendy"),
    "male": ("Albert", "Conor", "Dmitri", "George", "Hugo", "Javier", "Martin", "Oscar", "Ravi"),
}
LAST_NAMES = (
    *("Abbott", "Barlow", "Castell", "Delgado", "Everly", "Fairfax", "Granger", "Holloway"),
    *("Ingram", "Jarvis", "Kendrick", "Lockhart", "Merrick", "Novak", "O'Hara", "Pemberton"),
    *("Quill", "Redfern", "Sutcliffe", "Tremaine", "Wakefield"),
)

Row = dict[str, Any]


@dataclass(slots=True)
class Draft:
    """A row on its way into the file, with what is true of it."""

    row: Row
    right: str | None = None
    """The answer by the rules, where the row's own answer is another one."""
    skewed: bool = False
    malformed: str = ""
    exact: int = -1
    """Number of the pair of exact duplicates, shared by both rows."""
    near: int = -1
    """Number of the pair of near-duplicates, shared by both rows."""
    quotes: Draft | None = None
    """The held-out row that this one quotes."""
    quotes_item: int = -1
    """Line of the benchmark item that this row quotes."""
    identifiers: list[tuple[str, str]] = field(default_factory=list)
    secrets: list[tuple[str, str]] = field(default_factory=list)

    @property
    def plain(self) -> bool:
        """True where nothing is planted; a noisy or skewed answer does not count."""
        return not (self.malformed or self.quotes or self.identifiers or self.secrets) and (
            self.exact == self.near == self.quotes_item == -1
        )


def words(text: str) -> list[str]:
    """Lower-case words and numbers, in order."""
    return re.findall(r"\w+", text.lower())


def shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    """All runs of `size` words."""
    found = words(text)
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}


def text_of(row: Row) -> str:
    """The text that duplicate checks see."""
    return f"{row['prompt']}\n{row['completion']}"


def similarity(left: str, right: str) -> float:
    """Jaccard similarity of the word 5-grams of two texts; 0 where both are shorter."""
    a, b = shingles(left), shingles(right)
    return len(a & b) / len(a | b) if a | b else 0.0


def split_of_row(row: Row) -> str:
    """Where the pipeline's defaults put a row that is the first of its cluster."""
    messages = [
        {"role": "user", "content": row["prompt"]},
        {"role": "assistant", "content": row["completion"]},
    ]
    return split_of(row_id(messages, {"sex": row["sex"]}), SplitConfig())


# Answers --------------------------------------------------------------------------------------


def _draft(rng: random.Random, case: Case, skew: bool) -> Draft:
    """A row with its answer: right, noisy, or in the skewed set one class lower for women."""
    right = answer(case.specialty, case.urgency)
    specialty, urgency = case.specialty, case.urgency
    skewed = skew and case.sex == "female" and urgency == "urgent" and rng.random() < SKEW_RATE
    if skewed:
        urgency = "soon"
    if rng.random() < NOISE_RATE:
        if rng.random() < 0.5:
            specialty = rng.choice([s for s in COMPLAINTS if s != specialty])
        else:
            urgency = rng.choice([u for u in URGENCIES if u != urgency])
    given = answer(specialty, urgency)
    row = {
        "prompt": case.note,
        "completion": given,
        "sex": case.sex,
        "site": rng.choice(SITES),
    }
    return Draft(row, right=None if given == right else right, skewed=skewed)


# Malformed rows -------------------------------------------------------------------------------


def _insert(rng: random.Random, text: str, what: str) -> str:
    """Text with `what` put between two of its characters."""
    at = rng.randrange(1, len(text))
    return text[:at] + what + text[at:]


def _mojibake(rng: random.Random, row: Row) -> Row:
    """UTF-8 read as Windows-1252, as a careless export leaves it."""
    place = rng.choice(("the café", "Café Olé", "the crêperie"))
    damaged = f"{row['prompt']} Best reached at {place}.".encode().decode("cp1252")
    return {**row, "prompt": damaged}


MALFORMED: dict[str, Callable[[random.Random, Row], Row]] = {
    "missing_completion": lambda _, row: {k: v for k, v in row.items() if k != "completion"},
    "null_completion": lambda _, row: {**row, "completion": None},
    "empty_completion": lambda rng, row: {**row, "completion": rng.choice(("", "  ", "\n"))},
    "empty_prompt": lambda rng, row: {**row, "prompt": rng.choice(("", "   "))},
    "wrong_type": lambda rng, row: {**row, "completion": rng.choice((3, 2.5, True, ["urgent"]))},
    "control_characters": lambda rng, row: {
        **row,
        "prompt": _insert(rng, row["prompt"], rng.choice("\x00\x07\x1b")),
    },
    "mojibake": _mojibake,
    "replacement_character": lambda rng, row: {
        **row,
        "prompt": _insert(rng, row["prompt"], "\N{REPLACEMENT CHARACTER}"),
    },
}


# Identifiers and secrets ----------------------------------------------------------------------


def _full_name(rng: random.Random, sex: Sex) -> str:
    return f"{rng.choice(FIRST_NAMES[sex])} {rng.choice(LAST_NAMES)}"


def _name(rng: random.Random, sex: Sex) -> tuple[str, str]:
    name = _full_name(rng, sex)
    other = _full_name(rng, rng.choice(SEXES))
    return rng.choice(
        (
            (f"Patient: {name}.", name),
            (f"{WORDS[sex]['Mrs']} {name} agrees to this referral.", name),
            (f"{WORDS[sex]['She']} is known to Dr {other}.", other),
            (f"Dr. {other} has the scans.", other),
            (f"Signed, {other}.", other),
        )
    )


def _record_number(rng: random.Random, _: Sex) -> tuple[str, str]:
    number = str(rng.randint(10_000_000, 99_999_999))
    return rng.choice(
        (
            (f"MRN {number}.", number),
            (f"MRN: {number}.", number),
            (f"Medical record number {number}.", number),
            (f"Record no. {number}.", number),
        )
    )


def _phone(rng: random.Random, sex: Sex) -> tuple[str, str]:
    """Numbers from the ranges that are set aside for fiction."""
    area, line = rng.choice((212, 312, 415, 617)), f"01{rng.randint(0, 99):02d}"
    number = rng.choice(
        (
            f"({area}) 555-{line}",
            f"{area}-555-{line}",
            f"+1 {area} 555 {line}",
            f"020 7946 0{rng.randint(100, 999)}",
            f"+44 1632 960{rng.randint(100, 999)}",
        )
    )
    her = WORDS[sex]["her"]
    return rng.choice(
        (
            (f"Tel. {number}.", number),
            (f"Please ring {number} with a date.", number),
            (f"Call {her} home on {number}.", number),
        )
    )


def _email(rng: random.Random, sex: Sex) -> tuple[str, str]:
    """Addresses at the domains that are reserved for examples."""
    first, last = _full_name(rng, sex).split()
    plain = unicodedata.normalize("NFKD", f"{first}.{last}").encode("ascii", "ignore").decode()
    name = plain.replace("'", "").lower()
    address = f"{name}{rng.randint(1, 99)}@example.{rng.choice(('org', 'com', 'net'))}"
    return rng.choice(
        (
            (f"Send the letter to {address}.", address),
            (f"E-mail: {address}.", address),
            (f"{WORDS[sex]['She']} reads {address} daily.", address),
        )
    )


def _ssn(rng: random.Random, _: Sex) -> tuple[str, str]:
    """Area numbers 773 to 899, which were never issued by area."""
    number = f"{rng.randint(773, 899)}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"
    return rng.choice(
        (
            (f"SSN {number}.", number),
            (f"Social security number {number}.", number),
            (f"Insured under {number}.", number),
        )
    )


IDENTIFIERS: dict[str, Callable[[random.Random, Sex], tuple[str, str]]] = {
    "name": _name,
    "record_number": _record_number,
    "phone": _phone,
    "email": _email,
    "ssn": _ssn,
}


def _characters(rng: random.Random, alphabet: str, count: int) -> str:
    return "".join(rng.choices(alphabet, k=count))


def _aws_key(rng: random.Random) -> tuple[str, str]:
    key = "AK" + "IA" + _characters(rng, string.ascii_uppercase + "234567", 16)
    return f"Upload key {key}.", key


def _password(rng: random.Random) -> tuple[str, str]:
    value = _characters(rng, string.ascii_letters + string.digits, 14)
    return f"Portal login: {'pass' + 'word'}={value}", value


def _github_token(rng: random.Random) -> tuple[str, str]:
    token = "gh" + "p_" + _characters(rng, string.ascii_letters + string.digits, 36)
    return f"Sync used {token}.", token


def _private_key(rng: random.Random) -> tuple[str, str]:
    kind = "PRIVATE" + " KEY"
    body = _characters(rng, string.ascii_letters + string.digits + "+/", 64)
    block = f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"
    return block, block


SECRETS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "aws_access_key": _aws_key,
    "password": _password,
    "github_token": _github_token,
    "private_key": _private_key,
}


def _add_sentence(rng: random.Random, note: str, sentence: str) -> str:
    """The note with a sentence put after its first one or at its end."""
    head, dot, tail = note.partition(". ")
    if rng.random() < 0.5 and dot:
        return f"{head}. {sentence} {tail}"
    return f"{note} {sentence}"


def _identify(rng: random.Random, draft: Draft, kind: str) -> None:
    """Put an identifier of a kind into the note, and a name besides in one of three rows."""
    kinds = [kind] + (["name"] if kind != "name" and rng.random() < 1 / 3 else [])
    for each in kinds:
        sentence, found = IDENTIFIERS[each](rng, draft.row["sex"])
        draft.row["prompt"] = _add_sentence(rng, draft.row["prompt"], sentence)
        draft.identifiers.append((each, found))


# Copies and leaks -----------------------------------------------------------------------------


def _same_but_for_form(rng: random.Random, text: str) -> str:
    """The same text after normalisation of case, white space and Unicode form."""
    change = rng.randrange(4)
    if change == 0:
        return text
    if change == 1:
        return text.upper()
    if change == 2:
        return "  " + text.replace(". ", ".  \n") + "\t"
    return unicodedata.normalize("NFD", text).replace(" ", "\N{NO-BREAK SPACE}", 1)


_CHANGED_WORDS = (
    ("pulse", "pulse rate"),
    ("takes", "now takes"),
    ("and", "and also"),
    ("history", "medical history"),
    ("works", "still works"),
    ("Grateful", "Most grateful"),
    ("Please", "Kindly"),
    ("Thank", "Many thanks. Thank"),
)


def _edited(rng: random.Random, row: Row) -> Row | None:
    """A copy with a few words changed; None where it came out too near or too far.

    Bounds hold with and without the answer, so that they do not hang on what a check reads.
    """
    prompt = row["prompt"]
    for old, new in rng.sample(_CHANGED_WORDS, len(_CHANGED_WORDS)):
        if re.search(rf"\b{old}\b", prompt):
            prompt = re.sub(rf"\b{old}\b", new, prompt, count=1)
            break
    if rng.random() < 0.3:
        prompt += " " + rng.choice(("Many thanks.", "With kind regards.", "Best wishes."))
    copy = {**row, "prompt": prompt}
    whole = similarity(text_of(row), text_of(copy))
    notes = similarity(row["prompt"], prompt)
    return copy if min(whole, notes) >= 0.85 and max(whole, notes) <= 0.97 else None


def _quoting(rng: random.Random, note: str, sex: Sex) -> str:
    """A longer letter that quotes a whole note among other sentences."""
    before = details(rng, sex, 3)
    after = details(rng, sex, 4)
    return " ".join(
        (
            f"This is a second letter, {rng.randint(2, 40)} days after the first.",
            *before,
            "The first letter said the following.",
            note,
            "Since then little has changed.",
            *after,
        )
    )


def _leak(rng: random.Random, quoted: Row) -> Row:
    """A training row that quotes a held-out row, and is no near-duplicate of it."""
    while True:
        prompt = _quoting(rng, quoted["prompt"], quoted["sex"])
        row = {**quoted, "prompt": prompt, "site": rng.choice(SITES)}
        if split_of_row(row) == "train" and similarity(text_of(row), text_of(quoted)) < 0.65:
            return row


# The whole set --------------------------------------------------------------------------------


def build(seed: int = SEED, skew: bool = False) -> tuple[list[Row], dict[str, Any], list[Row]]:
    """Rows, the truth about them, and benchmark items that some of the rows quote.

    With `skew` most urgent women are answered with `soon`; all else is made the same way.
    """
    rng = random.Random(seed)
    drafts = [_draft(rng, case, skew) for case in write_cases(rng, NUM_PER_CELL)]
    untouched = iter(list(drafts))  # in random order: whoever takes from it, takes a fresh row
    for kind, damage in MALFORMED.items():
        for _ in range(NUM_MALFORMED):
            draft = next(untouched)
            draft.row, draft.malformed = damage(rng, draft.row), kind
    for kind, write in SECRETS.items():
        for _ in range(NUM_SECRETS):
            draft = next(untouched)
            sentence, secret = write(rng)
            draft.row["prompt"] = _add_sentence(rng, draft.row["prompt"], sentence)
            draft.secrets.append((kind, secret))
    for kind in IDENTIFIERS:
        for _ in range(NUM_IDENTIFIED):
            _identify(rng, next(untouched), kind)
    for pair in range(NUM_EXACT):
        draft = next(untouched)
        copy = {**draft.row, "prompt": _same_but_for_form(rng, draft.row["prompt"])}
        draft.exact = pair
        drafts.append(Draft(copy, draft.right, draft.skewed, exact=pair))
    pair = 0
    while pair < NUM_NEAR:
        draft = next(untouched)
        edited = _edited(rng, draft.row)
        if edited is not None:
            draft.near = pair
            drafts.append(Draft(edited, draft.right, draft.skewed, near=pair))
            pair += 1
    held_out = [draft for draft in untouched if split_of_row(draft.row) == "test"]
    drafts += [
        Draft(_leak(rng, draft.row), draft.right, draft.skewed, quotes=draft)
        for draft in rng.sample(held_out, NUM_LEAKS)
    ]
    cases = write_cases(rng, 1)[:NUM_BENCHMARK]
    items = [_draft(rng, case, skew=False) for case in cases]
    for number, item in enumerate(items[:NUM_BENCHMARK_LEAKS], 1):
        drafts.append(Draft(_leak(rng, item.row), item.right, quotes_item=number))
    rng.shuffle(drafts)
    benchmark = [{"note": item.row["prompt"], "answer": item.row["completion"]} for item in items]
    return [draft.row for draft in drafts], _truth(drafts), benchmark


def _pairs(numbers: Iterable[int]) -> list[dict[str, int]]:
    """The later line of each pair, and the earlier one that it copies."""
    first: dict[int, int] = {}
    found = []
    for line, number in enumerate(numbers, 1):
        if number in first:
            found.append({"line": line, "of": first[number]})
        elif number >= 0:
            first[number] = line
    return found


def _truth(drafts: list[Draft]) -> dict[str, Any]:
    """What is planted, by kind and line."""
    lines = list(enumerate(drafts, 1))
    line_of = {id(draft): line for line, draft in lines}
    return {
        "num_rows": len(drafts),
        "malformed": {
            kind: [line for line, draft in lines if draft.malformed == kind] for kind in MALFORMED
        },
        "identifiers": [
            {"line": line, "kind": kind, "text": text}
            for line, draft in lines
            for kind, text in draft.identifiers
        ],
        "secrets": [
            {"line": line, "kind": kind, "text": text}
            for line, draft in lines
            for kind, text in draft.secrets
        ],
        "exact_duplicates": _pairs([draft.exact for draft in drafts]),
        "near_duplicates": _pairs([draft.near for draft in drafts]),
        "leaks": [
            {"line": line, "of": line_of[id(draft.quotes)]} for line, draft in lines if draft.quotes
        ],
        "benchmark_leaks": [
            {"line": line, "item": draft.quotes_item}
            for line, draft in lines
            if draft.quotes_item > 0
        ],
        "noise": [
            {"line": line, "right": draft.right}
            for line, draft in lines
            if draft.right and not draft.skewed and not draft.malformed
        ],
        "skewed": [line for line, draft in lines if draft.skewed and not draft.malformed],
        "plain": [line for line, draft in lines if draft.plain],
    }


def _write_lines(path: Path, rows: list[Row]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_data(folder: Path = DATA) -> None:
    """Write both data sets, their truths and the benchmark into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, skew in (("", False), ("_skewed", True)):
        rows, truth, benchmark = build(skew=skew)
        _write_lines(folder / f"referrals{suffix}.jsonl", rows)
        text = json.dumps(truth, indent=1, ensure_ascii=False) + "\n"
        (folder / f"truth{suffix}.json").write_text(text, encoding="utf-8", newline="\n")
        _write_lines(folder / f"benchmark{suffix}.jsonl", benchmark)
        print(f"{folder / f'referrals{suffix}.jsonl'}: {len(rows):,} rows")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the demo's data sets.")
    parser.add_argument("--folder", type=Path, default=DATA, help="where to write them")
    write_data(parser.parse_args().folder)


if __name__ == "__main__":
    main()
