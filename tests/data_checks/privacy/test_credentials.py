"""Secrets are found under the name of their format. No example here is a working key."""

import pytest

from data_checks.privacy.credentials import DETECTORS, entropy
from data_checks.privacy.scanning import Scanner

A = "aB3dE5gH7jK9mN1pQ2sT4vW6xY8zA0cD1eF2gH3iJ4kL5mN6oP7qR8sT9uV0wX1yZ2" * 2
HEX = "0123456789abcdef" * 2
PEM = "-----{} RSA PRIVATE" + " KEY-----"

# Prefix and body stand apart so that this file does not look like a leak itself.
EXAMPLES = {
    "private_key": f"{PEM.format('BEGIN')}\n{A[:64]}\n{PEM.format('END')}",
    "aws_access_key_id": "AK" + "IAIOSFODNN7EXAMPLE",
    "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY",
    "github_token": "gh" + "p_" + A[:36],
    "gitlab_token": "gl" + "pat-" + A[:20],
    "slack_token": "xo" + "xb-123456789012-" + A[:24],
    "slack_webhook": "https://hooks.slack" + ".com/services/T00000000/B00000000/" + A[:24],
    "google_api_key": "AI" + "za" + A[:35],
    "google_oauth_token": "ya" + "29." + A[:40],
    "stripe_key": "sk" + "_live_" + A[:24],
    "anthropic_key": "sk" + "-ant-api03-" + A[:60],
    "openai_key": "sk" + "-proj-" + A[:48],
    "hugging_face_token": "h" + "f_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "npm_token": "np" + "m_" + A[:36],
    "pypi_token": "py" + "pi-AgEIcHlwaS5vcmc" + A[:60],
    "sendgrid_key": "S" + "G." + A[:22] + "." + A[:43],
    "twilio_key": "S" + "K" + HEX,
    "telegram_token": "123456789:" + "AA" + A[:33],
    "azure_storage_key": A[:86] + "==",
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + A[:43],
    "url_password": "s3cr3tpw",
    "bearer_token": A[:40],
    "assignment": "hunter2x!",
}
AROUND = {
    "aws_secret_access_key": "aws_secret_access_key = {}",
    "azure_storage_key": "AccountName=x;AccountKey={};EndpointSuffix=core",
    "url_password": "postgres://admin:{}@db.internal/prod",
    "bearer_token": "Authorization: Bearer {}",
    "assignment": "DB_PASSWORD={}",
}


def test_every_rule_has_an_example():
    assert {d.rule for d in DETECTORS} == set(EXAMPLES)


@pytest.mark.parametrize("rule", EXAMPLES)
def test_a_planted_secret_is_found_once_under_its_rule(rule):
    value = EXAMPLES[rule]
    text = f"Use this to sync the notes.\n{AROUND.get(rule, '{}').format(value)}\nThanks."
    (finding,) = Scanner(DETECTORS).scan(text)
    assert (finding.kind, finding.rule) == ("secret", rule)
    assert text[finding.start : finding.end] == value


def test_k_planted_secrets_are_k_findings():
    text = "\n".join(AROUND.get(rule, "{}").format(value) for rule, value in EXAMPLES.items())
    assert sorted(f.rule for f in Scanner(DETECTORS).scan(text)) == sorted(EXAMPLES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("password: Tr0ub4dor&3", "Tr0ub4dor&3"),
        ('"api_key": "9f8e7d6c5b4a"', "9f8e7d6c5b4a"),
        ("the password is hunter2x.", "hunter2x"),
        ("pwd=93827461", "93827461"),
        ("client_secret := 'correcthorsebattery'", "correcthorsebattery"),
        ("Portal login: password=bVbyAXnBQxzSqk.", "bVbyAXnBQxzSqk"),
    ],
)
def test_assignments(text, value):
    (finding,) = Scanner(DETECTORS).scan(text)
    assert text[finding.start : finding.end] == value


@pytest.mark.parametrize(
    "text",
    [
        "password: required",
        "The password must be at least 12 characters.",
        "password = getpass.getpass()",
        'token = os.environ["TOKEN"]',
        "api_key=YOUR_API_KEY",
        "secret: ${SECRET_1}",
        "password=********",
        "password=aaaaaa1111",
        "password=<password>",
        "The secret: eat well and sleep.",
        "Tokens per second: 12,345",
        "each token is 1234567 in the table",
        "password = userPassword",
        "AKIA is a prefix, and so is ghp_ or sk-",
        "https://example.org:8080/path@home",
        "the sk-learn package and the task-oriented view",
        "eyJust a word",
    ],
)
def test_near_misses(text):
    assert Scanner(DETECTORS).scan(text) == []


def test_entropy():
    assert entropy("") == 0
    assert entropy("aaaa") == 0
    assert entropy("abab") == 1  # two symbols, one bit
    assert entropy("abcd") == 2
