"""The version that holds the alias `champion`, from the record of the run that made it."""

from __future__ import annotations

from sft_core.lineage.tracing import sealed_run
from sft_core.reports import Frozen
from tasks.contest import Contest
from tasks.stage import StageRunner

CHAMPION = "champion"


class Champion(Frozen):
    """Its model and how it was trained to be asked; or why it cannot be compared with."""

    contest: Contest | None
    absent: str = ""


def find_champion(run: StageRunner, contest: Contest) -> Champion:
    """Who holds the alias today, asked as the contest asks.

    Raises:
        IntegrityError: the chain or the record of its run does not hold.
    """
    name = run.config.name
    run_id = run.tracking.call("run_of_alias", name, CHAMPION)()
    if run_id is None:
        return Champion(contest=None, absent=f"no version of {name} holds the alias {CHAMPION}")
    record = sealed_run(run_id)
    if record is None:
        return Champion(contest=None, absent=f"the chain here has no run {run_id} of the champion")
    tokens, tuned = record.report("tokenize"), record.report("train")
    if tokens is None or tuned is None:
        return Champion(contest=None, absent=f"the champion's run {run_id} has no trained model")
    own = {"tokens": tokens, "tuned": tuned, "model": record.config["model"]}
    return Champion(contest=Contest.model_validate(contest.model_dump() | own))
