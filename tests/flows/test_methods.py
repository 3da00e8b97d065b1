"""Rows that are plain text, in the whole pipeline."""

import json

import pytest

from sft_core.errors import DataError
from tests.conftest import ROOT, change

pytestmark = pytest.mark.flow


@pytest.fixture
def sft(prefect_server, home):
    from flows.sft import sft

    return sft


def texts(path, num_rows):
    """The demo's referrals as plain text."""
    lines = (ROOT / "examples/triage/data/referrals.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:num_rows]]
    path.write_text("".join(json.dumps({"text": row["prompt"]}) + "\n" for row in rows))
    return {"path": str(path), "consent": "not needed"}


def test_plain_text_and_chats_do_not_mix(sft, quick_config, tmp_path):
    sources = [s.model_dump(mode="json") for s in quick_config.ingest.sources]
    sources.append(texts(tmp_path / "texts.jsonl", 3))
    with pytest.raises(DataError, match=r"texts\.jsonl is plain text and .*rows\.jsonl is not"):
        sft(change(quick_config, ingest={"sources": sources}))
