"""The training stage alone, for a work pool of machines that train; `sft` calls for it."""

from prefect import State, flow
from prefect.states import Completed, Failed

from sft_core.config import ModelConfig, TrainingConfig
from sft_core.errors import TuneTrailError
from sft_core.records import canonical_json
from sft_core.reports import StageReport
from sft_core.store import put_bytes
from tasks.training import fit


@flow(name="train", description="Train on tokens that lie in the store; `sft` calls for it.")
def train(tokens: StageReport, model: ModelConfig, training: TrainingConfig, seed: int) -> State:
    """Ends with the digest of the stored report as its message, or with an error of ours."""
    try:
        report, timings = fit(tokens, model, training, seed)
    except TuneTrailError as error:
        return Failed(name=type(error).__name__, message=str(error))
    reply = {"report": report.model_dump(mode="json"), "timings": timings}
    return Completed(message=put_bytes(canonical_json(reply), ".json").sha256)
