"""Identifiers: rows a second, recall by kind of gold span, alarms on text that has hardly any.

`held_out` is recall on values that Faker makes for ten locales (`make bench-setup` installs it), in
sentences that were written before any miss was looked at. The rules stood at the commit `RULES`:
tune nothing on it. Faker's values are made by rules as well, cleaner than what people write.

`--write` also stores the recalls that the Safe Harbor table shows. The gold file was read while the
detectors were built, so that its recalls are no estimate for other text; the cues and formats come
from public standards, and none is there for a single template.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.harness import publish
from data_checks.privacy import safe_harbor
from data_checks.privacy.identifiers import _SCANNER, find_identifiers, protect
from sft_core.config import PrivacyConfig
from sft_core.records import Record

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared/data"
GOLD = DATA / "pii/synth_dataset_v2.json"
MEASUREMENTS = ROOT / "data_checks/privacy/measurements/identifier_recall.json"

FITTING = {
    "EMAIL_ADDRESS": {"email"},
    "US_SSN": {"ssn"},
    "IP_ADDRESS": {"ip"},
    "IBAN_CODE": {"iban"},
    "CREDIT_CARD": {"card"},
    "PHONE_NUMBER": {"phone"},
    "DOMAIN_NAME": {"url"},
    "DATE_TIME": {"date"},
    "STREET_ADDRESS": {"street", "postal_code"},
    "ZIP_CODE": {"postal_code", "street"},
    "US_DRIVER_LICENSE": {"licence"},
    "PERSON": {"name"},
}
"""Kinds that count as having found a gold entity."""
LETTERS = {
    "A": ("PERSON",),
    "B": ("STREET_ADDRESS", "ZIP_CODE"),
    "C": ("DATE_TIME",),
    "D": ("PHONE_NUMBER",),
    "F": ("EMAIL_ADDRESS",),
    "G": ("US_SSN",),
    "J": ("CREDIT_CARD", "IBAN_CODE"),
    "K": ("US_DRIVER_LICENSE",),
    "N": ("DOMAIN_NAME",),
    "O": ("IP_ADDRESS",),
}
"""Gold entities of each Safe Harbor letter."""
HELD_OUT_LETTERS = {
    "B": ("street",),
    "C": ("date",),
    "D": ("phone",),
    "F": ("email",),
    "G": ("ssn",),
    "J": ("iban", "card"),
    "O": ("ip",),
}
"""Kinds of `held_out` of each letter."""
RULE = "findings of a fitting kind cover half of the gold span; bare years are no dates"

RULES = "ab84abf"
"""Commit at which the rules stood when `held_out` was measured."""
HELD_OUT_SEED = 20
HELD_OUT_VALUES = 1_000
LOCALES = (
    *("en_US", "en_GB", "en_CA", "de_DE", "fr_FR", "it_IT", "es_ES", "nl_NL", "pl_PL", "pt_BR"),
)
PROVIDERS = {
    "email": "email",
    "ssn": "ssn",
    "iban": "iban",
    "card": "credit_card_number",
    "phone": "phone_number",
    "street": "street_address",
}
DATE_PATTERNS = (
    *("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%y", "%d.%m.%Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y"),
)
HELD_OUT_CUED = {
    "email": ("Please write to {} before noon.", "Her e-mail address is {}.", "E-mail: {}"),
    "ssn": ("His social security number is {}.", "SSN: {}", "The form wants the SSN ({})."),
    "ip": ("The request came from IP address {}.", "IP: {}", "Host {} did not answer the ping."),
    "iban": ("Transfer the deposit to IBAN {}.", "IBAN: {}", "The account is {} at our bank."),
    "card": ("She paid with credit card {}.", "Card number: {}", "Charge my card {} again."),
    "phone": ("You can call me at {}.", "Phone: {}", "My mobile number is {}."),
    "date": ("She was admitted on {}.", "Date of birth: {}", "The letter is dated {}."),
    "street": ("He lives at {}.", "Address: {}", "Please send the parcel to {}."),
}
HELD_OUT_BARE = ("It was {} that they noted down.", "{}", "We have {} in the file, nothing else.")

TITLED = re.compile(r"(?:Mr|Mrs|Ms|Miss|Dr|Mx|Sir|Prof|Professor|Doctor|Madam|Reverend)\.? $")

Texts = tuple[str, ...]

_CONFIG = PrivacyConfig()


def recall_on_gold() -> dict[str, tuple[int, int]]:
    """Gold spans found and gold spans in all, by entity."""
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in json.loads(GOLD.read_text(encoding="utf-8")):
        findings = find_identifiers(row["full_text"])
        for span in row["spans"]:
            entity = span["entity_type"]
            bare_year = entity == "DATE_TIME" and re.fullmatch("[0-9]{4}", span["entity_value"])
            if entity not in FITTING or bare_year:
                continue
            start, end = span["start_position"], span["end_position"]
            covered = sum(
                max(0, min(end, f.end) - max(start, f.start))
                for f in findings
                if f.kind in FITTING[entity]
            )
            total[entity] += 1
            found[entity] += 2 * covered >= end - start
    return {entity: (found[entity], total[entity]) for entity in FITTING}


def held_out() -> dict[tuple[str, str], int]:
    """Values found of each kind, behind a cue word and without one, over the locales: of
    `HELD_OUT_VALUES` each. The rule is `RULE`.

    SSNs are those of the United States alone; dates have English months or digits.
    """
    from faker import Faker

    rng = random.Random(HELD_OUT_SEED)
    fakers = {locale: Faker(locale) for locale in LOCALES}
    for faker in fakers.values():
        faker.seed_instance(HELD_OUT_SEED)
    hits = {}
    for kind, cued in HELD_OUT_CUED.items():
        for templates, where in ((cued, "behind a cue"), (HELD_OUT_BARE, "bare")):
            found = 0
            for number in range(HELD_OUT_VALUES):
                locale = "en_US" if kind == "ssn" else LOCALES[number % len(LOCALES)]
                value = _held_out_value(fakers[locale], kind, rng)
                before, after = rng.choice(templates).split("{}")
                start, end = len(before), len(before) + len(value)
                covered = sum(
                    max(0, min(end, f.end) - max(start, f.start))
                    for f in find_identifiers(before + value + after)
                    if f.kind == kind or (kind, f.kind) == ("street", "postal_code")
                )
                found += 2 * covered >= len(value)
            hits[kind, where] = found
    return hits


def _held_out_value(faker: Any, kind: str, rng: random.Random) -> str:
    match kind:
        case "ip":
            return str(rng.choice((faker.ipv4, faker.ipv6))())
        case "date":
            return str(faker.date(pattern=rng.choice(DATE_PATTERNS)))
    return str(getattr(faker, PROVIDERS[kind])()).replace("\n", ", ")


def safe_harbor_recall() -> dict[str, Any]:
    """What the bundled data file holds."""
    by_entity, found = recall_on_gold(), held_out()
    command = ["git", "log", "-1", "--format=%cs"]
    date = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {
        "data_set": "presidio-research synth_dataset_v2.json, 1,500 documents (MIT)",
        "sha256": hashlib.sha256(GOLD.read_bytes()).hexdigest(),
        "rule": RULE,
        "note": "The file was read while the detectors were built.",
        "code_date": date.strip(),
        "recall": {
            letter: {
                "hits": sum(by_entity[entity][0] for entity in entities),
                "n": sum(by_entity[entity][1] for entity in entities),
            }
            for letter, entities in LETTERS.items()
        },
        "held_out_data_set": f"Faker in {len(LOCALES)} locales, rules as at {RULES}",
        "held_out": {
            letter: {
                where: {
                    "hits": sum(found[kind, where] for kind in kinds),
                    "n": HELD_OUT_VALUES * len(kinds),
                }
                for where in ("behind a cue", "bare")
            }
            for letter, kinds in HELD_OUT_LETTERS.items()
        },
    }


def clean_documents() -> Iterator[str]:
    """gsm8k and pubmedqa: nobody is meant to be identified in them."""
    for question, answer in gsm8k():
        yield f"{question}\n{answer}"
    for question, contexts in pubmedqa():
        yield f"{question}\n{contexts}"


def alarms() -> tuple[Counter[str], int, int]:
    """Findings by kind but dates, those that are names after a title, and documents."""
    kinds: Counter[str] = Counter()
    num_titled = num_documents = 0
    for text in clean_documents():
        num_documents += 1
        for finding in find_identifiers(text):
            if finding.kind != "date":
                kinds[finding.kind] += 1
                titled = TITLED.search(text[: finding.start])
                num_titled += bool(finding.kind == "name" and titled)
    return kinds, num_titled, num_documents


def gsm8k() -> list[Texts]:
    """Question and answer, about 90 words a row."""
    lines = (DATA / "gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["question"], row["answer"]) for row in map(json.loads, lines)]


def pubmedqa() -> list[Texts]:
    """Question and abstract, about 220 words a row."""
    articles = json.loads((DATA / "pubmedqa/ori_pqal.json").read_text(encoding="utf-8"))
    return [(row["QUESTION"], "\n".join(row["CONTEXTS"])) for row in articles.values()]


def medquad() -> list[Texts]:
    """Question and answer, about 200 words a row."""
    with gzip.open(DATA / "medquad.jsonl.gz", "rt", encoding="utf-8") as file:
        return [(row["question"], row["answer"]) for row in map(json.loads, file)]


def clinical(num_rows: int, planted: int) -> list[Texts]:
    """Sentences of the demo's notes, which have their own few identifiers, up to 150 words, and so
    many more sentences with an identifier in each row.
    """
    lines = (ROOT / "examples/triage/data/referrals.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    notes = [row["prompt"] for row in rows if isinstance(row.get("prompt"), str)]
    sentences = [s for note in notes for s in note.split(". ") if s]
    rng = random.Random(0)
    made = []
    for _ in range(num_rows):
        words: list[str] = []
        while len(words) < 150:
            words += f"{rng.choice(sentences).rstrip('.')}.".split()
        note = " ".join(words)
        extra = [
            f"Seen by Dr. {rng.choice(('Marsh', 'Okafor', 'Lindqvist'))} then.",
            f"MRN {rng.randrange(10**6, 10**7)}.",
            f"Admitted on {rng.randrange(1, 13)}/{rng.randrange(1, 29)}/2021.",
            f"Tel. 212-555-{rng.randrange(100, 200):04d}.",
        ]
        made.append((" ".join([note, *rng.sample(extra, planted)]), "Specialty: surgery"))
    return made


def seconds(function: Callable[[Any], object], items: Sequence[Any], repeats: int) -> float:
    """Median CPU seconds of one core for all items, after one pass to fill the automaton."""
    for item in items:
        function(item)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for item in items:
            function(item)
        times.append(time.process_time() - start)
    return statistics.median(times)


def _protect(record: Record) -> object:
    return protect(record, _CONFIG)


def _protect_all(records: list[Record]) -> tuple[float, float]:
    """Wall and processor seconds for the records, in a process that has its automaton filled."""
    for record in records:
        _protect(record)
    start = (time.monotonic(), time.process_time())
    for record in records:
        _protect(record)
    return time.monotonic() - start[0], time.process_time() - start[1]


def speed(name: str, rows: list[Texts], repeats: int) -> dict[str, Any]:
    """Rows and characters a second of the scan, of the whole stage, and of two processes: by the
    clock, and by processor time, which is the clock of cores that nobody else uses.
    """
    num_chars = sum(len(text) for row in rows for text in row)
    records = [
        Record(i, "a" * 64, [{"role": "user", "content": text} for text in row])
        for i, row in enumerate(rows)
    ]
    scan = seconds(_SCANNER.scan_all, rows, repeats)
    stage = seconds(_protect, records, repeats)
    sample = rows[:: max(1, len(rows) // 200)]
    ungated = seconds(lambda row: [_SCANNER.scan_ungated(text) for text in row], sample, 1)
    with get_context("spawn").Pool(2) as pool:
        halves = pool.map(_protect_all, [records[::2], records[1::2]], chunksize=1)
    wall, processor = (max(times) for times in zip(*halves, strict=True))
    return {
        "on": name,
        "rows": len(rows),
        "chars_a_row": round(num_chars / len(rows)),
        "scan_rows_s_core": len(rows) / scan,
        "scan_chars_s_core": num_chars / scan,
        "protect_rows_s_core": len(rows) / stage,
        "protect_rows_s_2_processes": len(rows) / wall,
        "protect_rows_s_2_free_cores": len(rows) / processor,
        "ungated_rows_s_core": len(sample) / ungated,
    }


def main() -> None:
    """Print the tables; exit by exception when the data is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--json", type=Path, help="write the raw figures here")
    parser.add_argument("--write", action="store_true", help="renew the bundled recalls")
    args = parser.parse_args()
    size, repeats = (1_000, 1) if args.quick else (10_000, 5)
    speeds = [
        speed("clinical, 150 words", clinical(size, 0), repeats),
        speed("clinical, 150 words, 3 identifiers more", clinical(size, 3), repeats),
        speed("gsm8k", gsm8k()[:size], repeats),
        speed("medquad", medquad()[:size], repeats),
        speed("pubmedqa", pubmedqa(), repeats),
    ]
    recalls = [
        {"on": f"gold {entity}", "recall": hits / n, "n": n}
        for entity, (hits, n) in recall_on_gold().items()
    ]
    recalls += [
        {
            "on": f"held_out {kind}, {where}",
            "recall": hits / HELD_OUT_VALUES,
            "n": HELD_OUT_VALUES,
            "rules": RULES,
        }
        for (kind, where), hits in held_out().items()
    ]
    kinds, num_titled, num_documents = alarms()
    all_alarms = sum(kinds.values())
    found = [
        {"on": "alarms, all but dates", "per_1000": 1000 * all_alarms / num_documents},
        {
            "on": "alarms, without names after a title",
            "per_1000": 1000 * (all_alarms - num_titled) / num_documents,
        },
        *(
            {"on": f"alarms, {kind}", "per_1000": 1000 * n / num_documents}
            for kind, n in kinds.items()
        ),
    ]
    ratios = {f"scan/{s['on']}": s["scan_rows_s_core"] / s["ungated_rows_s_core"] for s in speeds}
    publish(args, [*speeds, *recalls, *found], ratios)
    if args.write:
        text = json.dumps(safe_harbor_recall(), indent=2) + "\n"
        MEASUREMENTS.write_text(text, encoding="utf-8")
        print(f"wrote {MEASUREMENTS.relative_to(ROOT)}; the table shows:")
        for row in safe_harbor.safe_harbor_table(PrivacyConfig(), {}).rows:
            print(" | ".join(str(cell) for cell in row))


if __name__ == "__main__":
    main()
