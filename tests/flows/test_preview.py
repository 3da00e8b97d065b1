"""`tunetrail preview` shows redacted training rows, writes no record and trains nothing."""

import pytest

from flows.cli import main
from flows.preview import visible
from sft_core.preview import Preview
from tests.conftest import change, children, tracking

pytestmark = pytest.mark.flow


def written(tmp_path, config):
    path = tmp_path / "config.yaml"
    path.write_text(config.model_dump_json())
    return str(path)


def test_preview_shows_rows_and_trains_nothing(tmp_path, home, capsys, quick_config):
    page = tmp_path / "preview.html"
    path = written(tmp_path, quick_config)
    assert main(["preview", path, "--rows", "3", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("<|im_end|>]") == 3  # each answer is trained with its end
    assert "fits: peak " in shown
    assert "\033" not in shown
    assert "Rows as they are trained" in page.read_text()
    assert page.stat().st_mode & 0o077 == 0
    client = tracking(home)
    experiment = client.get_experiment_by_name("quick").experiment_id
    runs = client.search_runs([experiment], "tags.`tunetrail.flow` = 'preview'")
    stages = children(home, runs[0].info.run_id)
    assert runs[0].info.status == "FINISHED"
    assert "tokenize" in stages
    assert not {"train", "evaluate", "register", "seal"} & set(stages)
    assert not (home / "chain").exists()
    assert not (home / "runs").exists()

    assert main(["preview", path, "--rows", "2", "--json"]) == 0
    found = Preview.model_validate_json(capsys.readouterr().out)
    assert len(found.rows) == 2
    assert found.estimate.num_steps == 4

    # A failed gate of the tokens is raised after the preview, which shows what failed it.
    limits = {"max_length": found.longest_tokens - 1}
    short = change(quick_config, tokenization=limits, policy={"max_truncated_rate": 0.0})
    assert main(["preview", written(tmp_path, short), "--json"]) == 3
    out = capsys.readouterr()
    assert Preview.model_validate_json(out.out).num_rows_cut == 1
    assert "tokenize: truncated_rate is" in out.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--rows", "0"], "--rows is 0"), (["--html", "my.yaml"], "my.yaml would be overwritten")],
)
def test_bad_flags(home, capsys, flags, message):
    assert main(["preview", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not home.exists()


def test_text_cannot_steer_a_terminal():
    assert visible("a\x1b[31mb\u202ec\nd\u00e9") == "a\\x1b[31mb\\u202ec\nd\u00e9"
