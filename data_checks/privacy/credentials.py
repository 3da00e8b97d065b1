"""Secrets in text: cloud keys, tokens, private keys, passwords in assignments.

Most issuers give their tokens a fixed prefix and length, so that scanners can find them; those are
the rules below, each named after its format. Passwords have no format: an assignment to a telling
name counts when the value does not read like a word, a placeholder or a reference to a variable.

Source: the issuers' published formats (AWS IAM unique identifiers, GitHub authentication tokens,
GitLab, Slack, Google Cloud, Stripe, OpenAI, Anthropic, Hugging Face, npm, PyPI, SendGrid, Twilio,
Telegram, Azure Storage), RFC 7468 (PEM), RFC 7519 (JWT), RFC 3986 3.2.1 (user information in URLs),
RFC 6750 (bearer tokens).
"""

from __future__ import annotations

import math
import re
from collections import Counter

from data_checks.privacy.scanning import Detector, Span

_MIN_ENTROPY = 2.5
"""Bits a character that an assigned value needs: `aaaa1111` has 1, `hunter2x` has 3."""

_PLACEHOLDER = re.compile(
    r"(?i:(?:your|my|the|some|an?|new|old|user|example|dummy|fake|sample|test|change|replace|insert"
    r"|enter|redacted|none|null|true|false|undefined|required|optional|string|secret|password|token"
    r"|value|env|process|config|settings|self|os|this)(?![a-z0-9]).*)|[x*.•_-]+|[A-Z_]+\d?"
)
_CAMEL_PART = re.compile("[A-Z]?[a-z]+|[A-Z]+")
_KEYS = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|api[ _-]?key|secret[ _-]?key|access[ _-]?key"
    r"|auth[ _-]?key|private[ _-]?key|credentials?"
)


def entropy(value: str) -> float:
    """Shannon entropy of the characters of a value, in bits a character; 0 for an empty one."""
    counts = Counter(value).values()
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts)


def _looks_random(letters: str) -> bool:
    """Whether letters change case like noise, not like `camelCase`: two short parts or more."""
    return sum(len(part) < 3 for part in _CAMEL_PART.findall(letters)) >= 2


def _assigned(match: re.Match[str]) -> Span | None:
    """The value of an assignment, unless it reads like prose, a placeholder or a variable."""
    value = match["v"].rstrip(".:")
    start = match.start("v")
    quoted = match["q"] != ""
    if len(value) < 6 or _PLACEHOLDER.fullmatch(value):
        return None
    has_letter = any(c.isalpha() for c in value)
    mixed = has_letter and (
        any(c.isdigit() or c in "!@#$%^&*+/=~" for c in value.rstrip("!?")) or _looks_random(value)
    )
    pin = not has_letter and value.isdigit() and match["key"].lower().startswith(("pass", "pwd"))
    if not (mixed or pin or quoted):
        return None
    if not pin and entropy(value) < _MIN_ENTROPY:
        return None
    return start, start + len(value)


def _rule(rule: str, pattern: str, gate: str) -> Detector:
    return Detector("secret", gate, re.compile(pattern), rule=rule, starts=None)


DETECTORS = (
    _rule(
        "private_key",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[^-]|-(?!----))*(?:-----END [A-Z ]{1,40}-----)?",
        "-----BEGIN [A-Z ]*PRIVATE KEY",
    ),
    _rule(
        "aws_access_key_id",
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        "(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{4}",
    ),
    _rule(
        "aws_secret_access_key",
        r"(?i:aws|secret)[\w .-]{0,30}(?i:key)[\"' ]{0,3}[:=][\"' ]{0,3}"
        r"(?P<v>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        "(?i:key)[\"' ]{0,3}[:=][\"' ]{0,3}[A-Za-z0-9/+]{20}",
    ),
    _rule(
        "github_token",
        r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{36,255})",
        "gh[pousr]_[A-Za-z0-9]{8}|github_pat_",
    ),
    _rule("gitlab_token", r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,64}", "glpat-"),
    _rule("slack_token", r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,250}", "xox[abeoprs]-"),
    _rule(
        "slack_webhook",
        r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/]{20,100}",
        r"hooks\.slack\.com/",
    ),
    _rule("google_api_key", r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}(?![\w-])", "AIza"),
    _rule("google_oauth_token", r"(?<![A-Za-z0-9])ya29\.[A-Za-z0-9_-]{20,1000}", r"ya29\."),
    _rule(
        "stripe_key",
        r"(?<![A-Za-z0-9])(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,250}",
        "[sr]k_(?:live|test)_|whsec_",
    ),
    _rule("anthropic_key", r"(?<![A-Za-z0-9])sk-ant-[A-Za-z0-9_-]{20,200}", "sk-ant-"),
    _rule(
        "openai_key",
        r"(?<![A-Za-z0-9-])sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,250}"
        r"|[A-Za-z0-9]{20,60})(?![A-Za-z0-9])",
        "sk-(?:proj-|svcacct-|admin-|[A-Za-z0-9]{20})",
    ),
    _rule("hugging_face_token", r"(?<![A-Za-z0-9])hf_[A-Za-z]{34}(?!\w)", "hf_[A-Za-z]{20}"),
    _rule("npm_token", r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}(?!\w)", "npm_[A-Za-z0-9]{20}"),
    _rule("pypi_token", r"(?<![A-Za-z0-9])pypi-AgEI[A-Za-z0-9_-]{50,1000}", "pypi-AgEI"),
    _rule(
        "sendgrid_key",
        r"(?<![A-Za-z0-9])SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![\w-])",
        r"SG\.[A-Za-z0-9_-]{16}",
    ),
    _rule("twilio_key", r"(?<![A-Za-z0-9])SK[0-9a-f]{32}(?![A-Za-z0-9])", "SK[0-9a-f]{16}"),
    _rule(
        "telegram_token",
        r"(?<![A-Za-z0-9])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![\w-])",
        "[0-9]{8}:AA",
    ),
    _rule(
        "azure_storage_key",
        r"(?i:account|shared ?access)_?(?i:key)=(?P<v>[A-Za-z0-9+/]{86}==)",
        "(?i:key)=[A-Za-z0-9+/]{20}",
    ),
    _rule(
        "jwt",
        r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{0,1000}",
        r"eyJ[A-Za-z0-9_-]{8}",
    ),
    _rule(
        "url_password",
        r"(?<![A-Za-z0-9])[a-z][a-z0-9+.-]{1,20}://[^\s/:@\[\]\"'<>]{0,100}"
        r":(?P<v>[^\s/@\[\]\"'<>${}]{3,200})@(?=[A-Za-z0-9])",
        "://[^ /@\"'<>]*:[^ /@\"'<>]+@",
    ),
    _rule(
        "bearer_token",
        r"(?i:authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)\s+)"
        r"(?P<v>[A-Za-z0-9._~+/=-]{16,4000})",
        "(?i:authorization)",
    ),
    Detector(
        "secret",
        rf"(?i:{_KEYS})[\"'`]?[ \t]*(?::|=|(?i:is|was)[ \t])",
        re.compile(
            rf"(?i:(?P<key>{_KEYS}))[\"'`]?[ \t]*(?::=|=>|==?|:|(?i:is|was)(?=[ \t]))[ \t]*"
            r"(?P<q>[\"'`]?)(?P<v>[^\s\"'`<>\[\](){}$,;]{6,200})"
        ),
        _assigned,
        "assignment",
    ),
)
