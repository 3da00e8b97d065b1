"""The one tree of errors that TuneTrail raises on purpose.

TuneTrailError            exit code 1, unless a branch below says otherwise
├── ConfigError           2  a config, a flag or a usage is wrong; nothing was done
├── GateError             3  a required gate failed or was not measured
├── DataError             5  data cannot be read: where, which line, why
├── ModelError            2  a base model is missing, not a model, or not safe to load
├── IntegrityError        6  something does not match its digest or signature
├── StorageError          1  the home cannot be written: disk full, read-only
└── ProcessError          1  a process that does a part of the work ended without a reply

Every error doubles as the standard-library error that it refines, and pickles, because Prefect
carries it between processes. A message says where, what was found, what is allowed and what to do;
it never holds record text.
"""

from __future__ import annotations


class TuneTrailError(Exception):
    """Root of the tree; `exit_code` is the contract of the command."""

    exit_code = 1
    run_id: str | None = None
    """MLflow's id of the run that it ended, set by the runner; its record tells the rest."""


class ConfigError(TuneTrailError, ValueError):
    """A config, a flag or a usage is wrong; nothing was done."""

    exit_code = 2


class ModelError(TuneTrailError, ValueError):
    """A base model is missing, is not a model, or is not safe to load."""

    exit_code = 2


class GateError(TuneTrailError):
    """A required gate failed or was not measured; the numbers are logged already."""

    exit_code = 3


class DataError(TuneTrailError, ValueError):
    """Data cannot be read: where, which line, why."""

    exit_code = 5


class IntegrityError(TuneTrailError):
    """Something does not match its digest or its signature."""

    exit_code = 6


class StorageError(TuneTrailError, OSError):
    """The home cannot be written."""

    exit_code = 1


class ProcessError(TuneTrailError, RuntimeError):
    """A process that does a part of the work ended without a reply."""

    exit_code = 1
    killed = False
    """Whether a signal ended it, as it happens where memory runs out."""
