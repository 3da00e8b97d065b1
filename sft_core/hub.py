"""Model files from the Hugging Face hub, through its client's cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sft_core.errors import ModelError


def download_model(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """Folder in the hub cache, named after the commit, with the top-level files that match.

    Without a connection the cache alone answers.

    Raises:
        ModelError: the name is no hub id, or the hub does not have it, give it or answer.
    """
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import validate_repo_id

    absent = f"{name}: no such folder, and"
    give = "Set model.model_name_or_path to a folder or a hub id with safetensors weights."
    # The client's failures to connect belong to the HTTP library that it is built on.
    transport = next(c for c in errors.HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    try:
        validate_repo_id(name)
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*", "consolidated*"],
        )
    except errors.HFValidationError as error:
        raise ModelError(f"{absent} not a hub id (owner/name). {give}") from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name}: the hub asks for permission to this model. Request it on the model's page, "
            "then log in with `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{name}: the hub has no revision {revision!r}. Set model.revision to a commit, tag or "
            "branch that exists."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"{absent} the hub shows no such model. {give}") from error
    except (OSError, transport) as error:
        raise ModelError(
            f"{absent} the hub cannot be reached ({type(error).__name__}), nor does its cache hold "
            f"revision {revision!r}. Connect (and unset HF_HUB_OFFLINE), or set "
            "model.model_name_or_path to a local folder."
        ) from error
    return Path(folder)
