"""Sections of the data half: what is read, on what terms, and what keeps a row out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from sft_core.config.section import InputFile, PositiveInt, Section


class Columns(Section):
    """Which columns hold what. Leave all empty to have the shape recognised: `messages`,
    `prompt`/`completion`, `instruction`/`input`/`output`, `question`/`answer`, or `text`."""

    messages: str | None = None
    """Column with a list of `{"role", "content"}`."""
    prompt: str | None = None
    """Column with the user's text."""
    completion: str | None = None
    """Column with the answer to learn."""
    system: str | None = None
    """Column with a system prompt."""
    text: str | None = None
    """Column with plain text, for continued pretraining: no turns, loss on every token. The sources
    of a run are all chats or all plain text."""
    licence: str | None = None
    """Column with the licence of each row; without it the source's licence holds."""
    consent: str | None = None
    """Column with the consent state of each row; without it the source's consent holds."""
    subject: str | None = None
    """Column that names the person a row is about, so that all their rows can be erased. The ledger
    holds a keyed pseudonym of it."""

    @model_validator(mode="after")
    def _text_stands_alone(self) -> Columns:
        turns = [n for n in ("messages", "prompt", "completion", "system") if getattr(self, n)]
        if self.text and turns:
            raise ValueError(
                f"text with {', '.join(turns)}: a row is plain text or a conversation; name the "
                "columns of one of the two"
            )
        return self


class SourceConfig(Section):
    """A file or data set to read, with the terms under which it may be used."""

    path: InputFile
    """JSONL, CSV or Parquet file (also `.gz`), a folder saved by `datasets`, or a hub id."""
    format: Literal["auto", "jsonl", "csv", "parquet", "datasets"] = "auto"
    """How to read it; `auto` goes by the name."""
    split: str = "train"
    """Split to read, for `datasets` folders and hub ids."""
    revision: str = "main"
    """Commit of a hub data set. Pin one: a branch can change, so it is read again in each run."""
    columns: Columns = Columns()
    """Column mapping; empty means that the shape is recognised."""
    subgroups: tuple[str, ...] = ()
    """Columns that ride along with each row, by which results are reported (sex, site)."""
    licence: str = "unknown"
    """Licence of the source, as an SPDX identifier where there is one."""
    consent: str = "unknown"
    """Ground for using the rows: given, not needed (synthetic, public), or unknown."""
    max_rows: PositiveInt | None = None
    """Read only the first rows."""


class IngestConfig(Section):
    """Stage 1: read sources into canonical records."""

    sources: tuple[SourceConfig, ...] = (
        SourceConfig(
            path="examples/triage/data/referrals.jsonl",
            subgroups=("sex",),
            licence="CC0-1.0",
            consent="not needed",
        ),
    )
    """Where the rows come from, in order."""
    max_line_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 10_000_000
    """Longest line that is read, in bytes; a longer one stops the run."""

    @model_validator(mode="after")
    def _some_source(self) -> IngestConfig:
        if not self.sources:
            raise ValueError("at least one source is needed")
        return self


class TermsConfig(Section):
    """On what terms rows may be used. A row on other terms is left out, and by default fails the
    run."""

    allowed_licences: tuple[str, ...] | None = None
    """Licences that a row may have; empty means any, `unknown` included."""
    allowed_consent: tuple[str, ...] = ("given", "not needed")
    """States of consent that a row may have; `unknown` is what a source has that states none."""
    erasure_list: InputFile | None = None
    """Text file, an entry a line: a row id, or a value of the subject column. Rows that match are
    left out."""


class ValidationConfig(Section):
    """Stage 2: rows that cannot be trained on go to quarantine."""

    max_turns: PositiveInt = 64
    """Most messages in a record."""
    min_completion_chars: PositiveInt = 1
    """Shortest answer, in characters."""
    max_chars: PositiveInt = 100_000
    """Longest record, in characters over all messages."""
    suite: InputFile | None = None
    """JSON file with a Great Expectations suite of your own, judged besides the bundled one."""


SecretAction = Literal["keep", "redact", "drop", "fail"]
IdentifierAction = Literal["keep", "redact", "pseudonymize", "drop", "fail"]
CoarseAction = Literal["keep", "redact", "pseudonymize", "generalize", "drop", "fail"]
DateAction = Literal["keep", "redact", "pseudonymize", "generalize", "shift", "drop", "fail"]


class PrivacyConfig(Section):
    """Stage 3: what happens to each kind of identifier. `redact` puts a numbered placeholder,
    `pseudonymize` one that a secret key makes the same in every row, `generalize` a coarser value,
    `shift` moves the dates of a row by the same days, `drop` takes the row out, `fail` stops the
    run, `keep` only counts."""

    email: IdentifierAction = "redact"
    """E-mail addresses."""
    phone: IdentifierAction = "redact"
    """Telephone and fax numbers."""
    ssn: IdentifierAction = "redact"
    """US social security numbers."""
    national_id: IdentifierAction = "redact"
    """National identity, tax and health numbers of other countries; most have check digits."""
    card: IdentifierAction = "redact"
    """Payment card numbers (issuer prefix and Luhn digit)."""
    iban: IdentifierAction = "redact"
    """Bank accounts (IBAN with its check digits)."""
    account: IdentifierAction = "redact"
    """Account and routing numbers, found by the words before them."""
    ip: CoarseAction = "redact"
    """IPv4 and IPv6 addresses; generalised to the network, the first three groups."""
    url: IdentifierAction = "keep"
    """Web addresses and domain names."""
    date: DateAction = "keep"
    """Dates finer than a year; generalised to the year."""
    age: CoarseAction = "redact"
    """Ages over 89; generalised to 90 or older."""
    record_number: IdentifierAction = "redact"
    """Medical record, case, specimen, customer numbers and the like, by the words before them."""
    health_plan: IdentifierAction = "redact"
    """Health plan, policy and member numbers."""
    licence: IdentifierAction = "redact"
    """Licences and certificates: drivers, professionals, NPI and DEA with their check digits."""
    vehicle: IdentifierAction = "redact"
    """Vehicle identification numbers (VIN with its check digit) and number plates."""
    device: IdentifierAction = "redact"
    """Device identifiers and serial numbers (UDI, IMEI)."""
    street: IdentifierAction = "redact"
    """Street addresses."""
    postal_code: CoarseAction = "redact"
    """Postal codes, found by the words or the address around them; generalised to three signs."""
    name: IdentifierAction = "redact"
    """Names of people after a cue (Mr, Dr, patient:, signed), and those that `ner` finds."""
    secret: SecretAction = "fail"
    """Cloud keys, tokens, private keys, passwords in assignments."""
    ner: InputFile | None = None
    """Recogniser to ask as well: `presidio`, `presidio:SPACY_MODEL`, or `module:function` of yours,
    which maps a list of texts to lists of (kind, start, end)."""

    @property
    def needs_key(self) -> bool:
        """Whether some action draws on the secret key of pseudonyms and date shifts."""
        return not {"pseudonymize", "shift"}.isdisjoint(vars(self).values())


class DedupConfig(Section):
    """Stage 4: exact duplicates after normalisation, then verified near-duplicates."""

    near_duplicates: Literal["drop", "keep"] = "drop"
    """`keep` leaves near-duplicates in but holds each cluster in one split."""
    min_similarity: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    """Jaccard similarity of word 5-grams from which two rows are near-duplicates."""
    kept_row: Literal["earliest", "longest"] = "earliest"
    """Which row of a cluster stays: the earliest, or the one with the most words (of equally long
    ones the earliest). Of exact duplicates, which are equally long, the earliest stays."""


class SplitConfig(Section):
    """Stage 5: train, validation and test by a hash of the near-duplicate cluster."""

    validation_rate: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    """Share of clusters that go to validation."""
    test_rate: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    """Share of clusters that go to the held-out test."""
    salt: str = "tunetrail"
    """Changes which rows are held out; keep it while results are compared."""


class BenchmarkFile(Section):
    """A benchmark whose items must not be in the training rows."""

    path: InputFile
    """JSONL, CSV or Parquet file (also `.gz`)."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Columns whose text makes up an item. Name the question alone to find it with any answer."""


class ContaminationConfig(Section):
    """Stage 6: training rows that overlap held-out items are taken out."""

    benchmarks: tuple[BenchmarkFile, ...] = ()
    """Benchmark files to check against, besides the held-out split."""
    min_overlap: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of an item's word 13-grams in one training row from which the row leaks the item:
    verbatim copies. It adds to `min_similarity` where it is the lower one."""
    min_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of an item's distinctive word 3-grams in one training row from which the row leaks the
    item: copies with words or numbers changed."""


def _sum_to_one(shares: dict[str, float]) -> dict[str, float]:
    if len(shares) < 2 or abs(sum(shares.values()) - 1.0) > 1e-6:
        raise ValueError("two or more shares that sum to 1 are needed")
    return shares


Shares = Annotated[dict[str, Annotated[float, Field(gt=0.0, lt=1.0)]], AfterValidator(_sum_to_one)]


class BiasConfig(Section):
    """Stage 7: who is in the training text, and what goes together with whom."""

    lexicon: InputFile | None = None
    """JSON file with identity terms by dimension and group; empty means the bundled one."""
    clinical_terms: InputFile | None = None
    """JSON file with words whose association with a group is expected in medicine; they are shown
    apart. Empty means the bundled one."""
    occupations: InputFile | None = None
    """JSON file with occupations; they are tested apart from all other words, and so with more
    power. Empty means the bundled one."""
    refusals: InputFile | None = None
    """JSON file with the first words of answers that decline; empty means the bundled one."""
    references: dict[str, Shares | Literal["equal"]] = {}  # noqa: RUF012
    """Shares that the groups of a dimension should have among its mentions, such as
    `{sex: {female: 0.5, male: 0.5}}`; `equal` means the same share for every group of the lexicon.
    A dimension without an entry is held against the lexicon's own reference, if it states one."""
    min_mentions: PositiveInt = 20
    """Rows a group needs before it is compared."""
    num_permutations: Annotated[int, Field(ge=100, le=100_000)] = 1_000
    """Permutations of each test."""
