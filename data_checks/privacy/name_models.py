"""A recogniser of names that the user brings: a function of his own, or Presidio with spaCy."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_checks.privacy.scanning import Finding
from sft_core.errors import ConfigError

Recogniser = Callable[[list[str]], Sequence[Iterable[tuple[str, int, int]]]]
"""Texts to (kind, start, end) for each; kinds are fields of `PrivacyConfig`, offsets characters."""

_PRESIDIO_KINDS = {
    "PERSON": "name",
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "US_SSN": "ssn",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "US_DRIVER_LICENSE": "licence",
    "MEDICAL_LICENSE": "licence",
    "US_BANK_NUMBER": "account",
    "US_PASSPORT": "national_id",
    "UK_NHS": "national_id",
}
"""Presidio's entities that have a kind here; the others are left out."""


def recognise(name: str, texts: list[str], kinds: Sequence[str]) -> list[list[Finding]]:
    """What the recogniser of that name finds in each text.

    Raises:
        ConfigError: there is no such recogniser, or what it returns is not spans of known kinds.
    """
    answers = list(load_recogniser(name)(texts))
    if len(answers) != len(texts):
        raise ConfigError(
            f"privacy.ner: {name} returned {len(answers)} lists for {len(texts)} texts. "
            "It must return one list for each text."
        )
    for spans, text in zip(answers, texts, strict=True):
        for kind, start, end in spans:
            if kind not in kinds or not 0 <= start < end <= len(text):
                raise ConfigError(
                    f"privacy.ner: {name} returned the kind {kind!r} at {start}-{end} of a text of "
                    f"{len(text)} characters. Kinds are {', '.join(kinds)}."
                )
    return [[Finding(*span) for span in spans] for spans in answers]


@functools.lru_cache(maxsize=1)
def load_recogniser(name: str) -> Recogniser:
    """Import the recogniser, once a process.

    Raises:
        ConfigError: it is not there; the message says what to install or to write.
    """
    if name.partition(":")[0] == "presidio":
        return _presidio(name.partition(":")[2] or "en_core_web_lg")
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"privacy.ner: {name!r} cannot be imported ({error}). Write `module:function` of a "
            "module on the Python path, or `presidio`."
        ) from error
    if not callable(found):
        raise ConfigError(f"privacy.ner: {name!r} is a {type(found).__name__}, not a function.")
    return found  # type: ignore[no-any-return]


def _presidio(model: str) -> Recogniser:
    for package in ("presidio_analyzer", "spacy"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"privacy.ner: presidio needs the package {package}, which is not installed. "
                "Run `pip install presidio-analyzer`, or leave privacy.ner empty."
            )
    spacy: Any = importlib.import_module("spacy")
    presidio: Any = importlib.import_module("presidio_analyzer")
    engines: Any = importlib.import_module("presidio_analyzer.nlp_engine")
    if not (Path(model).is_dir() or spacy.util.is_package(model)):
        raise ConfigError(
            f"privacy.ner: presidio needs the spaCy model {model!r}, which is not installed. Run "
            f"`python -m spacy download {model}`, or name a folder: `presidio:FOLDER`."
        )
    provider = engines.NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": "en", "model_name": model}],
        }
    )
    analyzer = presidio.AnalyzerEngine(nlp_engine=provider.create_engine())

    def find(texts: list[str]) -> list[list[tuple[str, int, int]]]:
        return [
            [
                (_PRESIDIO_KINDS[result.entity_type], result.start, result.end)
                for result in analyzer.analyze(text, language="en", entities=list(_PRESIDIO_KINDS))
            ]
            for text in texts
        ]

    return find
