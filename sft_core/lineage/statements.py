"""What a run's stages state: SLSA provenance of what they made, and test results of their gates.

Each is an in-toto Statement v1 in the predicate types that other people's tools know. What a stage
made is named by content, as what a later stage used: so the statements can be joined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from sft_core.lineage.chain import STATEMENT_PAYLOAD, make_statement
from sft_core.lineage.signing import signed, signing_key
from sft_core.records import sha256_json
from sft_core.reports import RunRecord, StageReport

PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUNDLE = "statements.intoto.jsonl"
"""File of a run that holds them all, as in-toto's tools take them."""
_STAGE = "urn:tunetrail:stage:v1"


def stage_statements(
    record: RunRecord, code: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and statement of each stage, and of the gates of each that has some.

    Args:
        record: the run up to its seal.
        code: what `code_provenance` says.
    """
    for report in record.reports:
        stage = report.stage
        yield f"{stage}.provenance", _provenance(record, report, code)
        if report.gates:
            yield f"{stage}.gates", _test_result(record, report)


def signed_bundle(statements: Iterable[tuple[str, dict[str, Any]]]) -> bytes:
    """The statements in signed envelopes, one a line."""
    signer = signing_key()
    lines = [signed(signer, STATEMENT_PAYLOAD, statement) for _, statement in statements]
    return b"".join(line + b"\n" for line in lines)


def _provenance(record: RunRecord, report: StageReport, code: dict[str, str]) -> dict[str, Any]:
    made = [(ref.path, ref.sha256) for ref in report.refs()]
    used = record.inputs.get(report.stage, ())
    return make_statement(
        PROVENANCE,
        [_file_of(report), *made],
        {
            "buildDefinition": {
                "buildType": _STAGE,
                "externalParameters": {
                    "stage": report.stage,
                    "config_sha256": sha256_json(record.config),
                },
                "internalParameters": {"seed": record.config["seed"]},
                "resolvedDependencies": [
                    {"name": "code", "digest": {"gitCommit": code["commit"]}},
                    *({"name": ref.path, "digest": {"sha256": ref.sha256}} for ref in used),
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:tunetrail"},
                "metadata": {"invocationId": record.run_id},
            },
        },
    )


def _test_result(record: RunRecord, report: StageReport) -> dict[str, Any]:
    """An advisory gate that does not pass is a warning, and so is a waived one."""
    passed = [g.metric for g in report.gates if g.verdict == "pass"]
    failed = [g.metric for g in report.gates if g.blocks]
    warned = [g.metric for g in report.gates if g.metric not in {*passed, *failed}]
    return make_statement(
        TEST_RESULT,
        [_file_of(report)],
        {
            "result": "FAILED" if failed else "WARNED" if warned else "PASSED",
            "configuration": [
                {"name": "policy", "digest": {"sha256": sha256_json(record.config["policy"])}}
            ],
            "passedTests": passed,
            "warnedTests": warned,
            "failedTests": failed,
        },
    )


def _file_of(report: StageReport) -> tuple[str, str]:
    """Name and digest of the report as it is stored."""
    return f"reports/{report.stage}.json", hashlib.sha256(report.to_json()).hexdigest()
