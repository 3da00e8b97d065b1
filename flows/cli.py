"""The `tunetrail` command. Heavy imports wait until a verb needs them, so `--help` is instant."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sft_core.errors import ConfigError, TuneTrailError

_ROW_ID = re.compile(r"[0-9a-f]{64}")
_EPILOG = """exit codes:
  0 done, every required gate passed    4 done, waiting for approval
  1 unexpected error                    5 data cannot be read
  2 config or usage, nothing was done   6 integrity: a digest or signature does not match
  3 a gate failed or was not measured
"""


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return _guarded(args)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _guarded(args: argparse.Namespace) -> int:
    """Run the verb; every error ends as one message and its exit code."""
    try:
        code: int = args.verb(args)
    except KeyboardInterrupt:
        print("tunetrail: interrupted. A run that had begun is closed.", file=sys.stderr)
        return 130
    except TuneTrailError as error:
        failure = error
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  (the one place where a bug becomes an exit code)
        print(f"tunetrail: {_kept(error)}", file=sys.stderr)
        return 1
    else:
        return code
    shown = failure.run_id is not None and _show_run(args, failure.run_id)
    if args.json and not shown:
        print(json.dumps({"error": type(failure).__name__, "message": str(failure)}))
    print(f"tunetrail: {failure}", file=sys.stderr)
    return failure.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tunetrail",
        description="Fine-tune with LoRA and leave a record that anybody can check.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, function: Any, text: str, *, config: bool = False) -> Any:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print JSON for programs")
        if config:
            sub.add_argument(
                "config", nargs="?", type=Path, help="YAML config; without it the demo"
            )
        sub.set_defaults(verb=function)
        return sub

    run = verb("run", _run, "run the whole pipeline", config=True)
    run.add_argument(
        "--replay", metavar="RUN_ID", help="repeat a sealed run; exits with 6 if it differs"
    )
    verb("audit", _audit, "check the data alone; no model is touched", config=True)
    preview = verb("preview", _preview, "show what training would see and take", config=True)
    preview.add_argument("--rows", type=int, default=5, help="training rows to show (5)")
    preview.add_argument("--html", type=Path, metavar="FILE", help="write it as a page as well")
    verb("schema", _schema, "print the JSON schema of the config")
    verb("doctor", _doctor, "check this machine and this installation", config=True)
    init = verb("init", _init, "write a config with every field, its default and its help")
    init.add_argument("path", type=Path, help="file to write; an existing one is left alone")
    export = verb(
        "export", _export, "write a run's model, tokenizer, template and card to a folder"
    )
    export.add_argument("run", help="MLflow run id")
    export.add_argument("folder", type=Path, help="folder to make; an existing one is left alone")
    export.add_argument("--merge", action="store_true", help="base and adapter as one model")
    verify = verb("verify", _verify, "recompute a run's record from the stored evidence")
    which = verify.add_mutually_exclusive_group()
    which.add_argument("run", nargs="?", help="MLflow run id; without it all runs")
    which.add_argument("--all", action="store_true", help="all runs (the default)")
    verify.add_argument("--public-key", type=Path, help="PEM file; without it the home's own key")
    verify.add_argument("--proof", type=Path, help="check a proof about --row, and nothing else")
    verify.add_argument("--row", help="with --proof: row id that one asks about, 64 digits")
    prove = verb(
        "prove", _prove, "was a row in a model's training set? a proof that shows no other row"
    )
    prove.add_argument("run", help="MLflow run id")
    prove.add_argument("row", help="row id, whole or its first 8 digits or more, or FILE:LINE")
    rotate = verb("rotate-key", _rotate_key, "hand over to a new signing key")
    rotate.add_argument("--to", type=Path, help="PEM file, where TUNETRAIL_SIGNING_KEY is set")
    trace = verb("trace", _trace, "tell what became of a row, and which models saw it")
    trace.add_argument("kind", nargs="?", choices=("row", "subject"), help="what KEY names")
    trace.add_argument(
        "key", nargs="?", help="row: ID (8 digits or more) or FILE:LINE; subject: its key"
    )
    trace.add_argument("--dropped", action="store_true", help="list the rows that a run dropped")
    trace.add_argument("--reason", help="with --dropped: only this reason (near_duplicate)")
    trace.add_argument("--stage", help="with --dropped: only this stage")
    trace.add_argument("--run", help="with --dropped: MLflow run id; without it the newest run")
    explain = verb("explain", _explain, "name the training rows behind an answer")
    explain.add_argument("run", help="MLflow run id")
    explain.add_argument("--prompt", help="what the model is asked; without it --output is a text")
    explain.add_argument("--output", required=True, help="the answer to explain")
    explain.add_argument("--top", type=int, default=5, help="rows to show of each sign (5)")
    return parser


def _kept(error: Exception) -> str:
    """One line for people; the traceback goes to a file of the home."""
    from sft_core.store import home

    if "disk is full" in str(error) or "readonly database" in str(error):
        return f"{home()}: a database in it cannot be written. Free space or make it writable."
    path = home() / "logs" / f"error-{time.strftime('%Y%m%d-%H%M%S')}.log"
    name = f"unexpected {type(error).__name__}"
    try:
        path.touch(mode=0o600)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as unwritable:
        return f"{name} (no traceback kept: {unwritable.strerror})."
    return f"{name}. The traceback is in {path}; it may quote data, look before you share it."


def _load(args: argparse.Namespace) -> Any:
    from sft_core.config import DEMO
    from sft_core.config.file import load_config

    return load_config(args.config) if args.config else DEMO


def _run(args: argparse.Namespace) -> int:
    if args.replay:
        return _replay(args)
    config = _load(args)
    with _own_lines(), _run_starting():
        from flows.embedded_server import start_server

        wait_for_server = start_server()
        import peft  # noqa: F401  (the flow's first lines need it, and the server is not up yet)

        from flows.sft import sft

        wait_for_server()
        run_id = sft(config)
    _show_run(args, run_id)
    return 0


def _replay(args: argparse.Namespace) -> int:
    from flows.replay import replay

    if args.config:
        raise ConfigError("run: --replay takes the config from the record. Name no other.")
    same = replay(args.replay)
    print(json.dumps({"same": same}) if args.json else same)
    return 0


def _audit(args: argparse.Namespace) -> int:
    from sft_core.store import home

    config = _load(args)
    is_new = not (home() / "mlflow.db").exists()
    with _own_lines(), _run_starting():
        from prefect.settings import PREFECT_API_URL

        from flows.audit import audit

        if is_new:  # no stage is cached, and MLflow's process still makes its database
            import data_checks.validation.expectations  # noqa: F401

        # An audit is not worth the start of a server: it is a flow run where one is there already.
        if PREFECT_API_URL.value():
            run_id = audit(config)
        else:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the flow engine does
            run_id = audit.fn(config)
    _show_run(args, run_id)
    return 0


def _preview(args: argparse.Namespace) -> int:
    if args.rows < 1:
        raise ConfigError(f"--rows is {args.rows}, at least 1.")
    if args.html and args.html.suffix != ".html":
        raise ConfigError(f"--html: {args.html} would be overwritten; give a name with .html.")
    config = _load(args)
    with _own_lines(), _run_starting():
        from flows.preview import describe, preview
        from sft_core.documents.preview_page import write_preview

        def show(found: Any) -> None:
            if args.html:
                write_preview(found, args.html)
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            print(found.model_dump_json() if args.json else describe(found, colour))
            args.json = False  # a gate that failed is told on stderr: one JSON document is enough

        preview(config, args.rows, show)
    return 0


class _AboveBars(logging.Handler):
    """Writes to stderr, above the progress bars that stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def _own_lines() -> Iterator[None]:
    """Our own lines on stderr instead of Prefect's; libraries' warnings go to the log file."""
    from sft_core.store import make_home, writing

    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    folder = make_home() / "logs"
    with writing(folder):
        folder.mkdir(exist_ok=True)
        file = logging.FileHandler(folder / "tunetrail.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    console = _AboveBars()
    console.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    ours, warned = logging.getLogger("tunetrail"), logging.getLogger("py.warnings")
    ours.setLevel(logging.INFO)
    added: list[tuple[logging.Logger, logging.Handler]] = [
        (ours, console),
        (ours, file),
        (warned, file),
    ]
    for logger, handler in added:
        logger.propagate = False
        logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handler in added:
            logger.removeHandler(handler)
            logger.propagate = True
        file.close()


def _run_starting() -> AbstractContextManager[None]:
    """Say so, and have MLflow's process start beside our imports."""
    logging.getLogger("tunetrail").info("starting; the first start of a home takes longer")
    from tasks.tracking_process import tracking_started

    return tracking_started()


def _show_run(args: argparse.Namespace, run_id: str) -> bool:
    """Print how a run ended; False where it left no record."""
    from flows.summary import describe_run, load_run

    record = load_run(run_id)
    if record is None:
        return False
    if args.json:
        print(json.dumps(record.model_dump(mode="json") | {"verdict": record.verdict}))
    else:
        print(describe_run(record))
    return True


def _schema(args: argparse.Namespace) -> int:  # noqa: ARG001
    from sft_core.config.file import config_schema

    print(json.dumps(config_schema(), indent=2))
    return 0


def _init(args: argparse.Namespace) -> int:
    from flows.starter import starter_config

    if args.path.exists():
        raise ConfigError(f"{args.path}: exists and was left alone. Name another file.")
    try:
        args.path.write_text(starter_config(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{args.path}: cannot be written: {error.strerror}.") from error
    print(json.dumps({"written": str(args.path)}) if args.json else f"wrote {args.path}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from flows.doctor import examine

    findings = examine(_load(args))
    if args.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.found}")
    return 0 if all(finding.ok for finding in findings) else ConfigError.exit_code


def _export(args: argparse.Namespace) -> int:
    from flows.summary import load_run
    from sft_core.training.export import export

    record = load_run(args.run)
    if record is None:
        raise ConfigError(f"export: no run {args.run} has a record here.")
    with _own_lines():
        difference = export(record, args.folder, merge=args.merge)
    if args.json:
        written = {"written": str(args.folder), "verdict": record.verdict}
        print(json.dumps(written | {"largest_logit_difference": difference}))
        return 0
    print(f"wrote {args.folder} (verdict of the run: {record.verdict})")
    if difference is not None:
        print(f"merged, read back and compared: no logit differs by more than {difference:.3g}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    if args.proof:
        return _verify_proof(args)
    from sft_core.lineage.verification import verify

    lines = []
    for line in itertools.chain(verify(args.run, args.public_key), _window(args)):
        lines.append(line)
        if not args.json:
            print(f"ok  {line}")
    if args.json:
        print(json.dumps({"verified": lines}, indent=2))
    return 0


def _window(args: argparse.Namespace) -> Iterator[str]:
    """An auditor with a copy of the evidence needs no MLflow."""
    try:
        from tasks.window import compare_with_mlflow
    except ImportError:
        yield "MLflow: is not installed here, NOT COMPARED"
    else:
        yield from compare_with_mlflow(args.run, args.public_key)


def _verify_proof(args: argparse.Namespace) -> int:
    from sft_core.lineage.membership import check_proof, read_proof
    from sft_core.lineage.signing import public_key

    if not args.row:
        raise ConfigError("verify: --proof goes with --row, the row id that it is about.")
    run_id, was_there = check_proof(read_proof(args.proof), args.row, public_key(args.public_key))
    if args.json:
        print(json.dumps({"run_id": run_id, "row_id": args.row, "in_training_set": was_there}))
    else:
        said = "WAS" if was_there else "was NOT"
        print(f"row {args.row} {said} in the training set of run {run_id}")
    return 0


def _prove(args: argparse.Namespace) -> int:
    from sft_core.lineage.membership import prove
    from sft_core.lineage.tracing import trace_row

    row_id = args.row if _ROW_ID.fullmatch(args.row) else trace_row(args.row)["row_id"]
    print(prove(args.run, row_id).model_dump_json())
    return 0


def _rotate_key(args: argparse.Namespace) -> int:
    from sft_core.lineage.chain import rotate_key

    statement = rotate_key(args.to)
    text = f"the next statements are signed by the new key; {statement.path} says so"
    print(json.dumps({"statement": statement.path}) if args.json else text)
    return 0


def _trace(args: argparse.Namespace) -> int:
    from flows.story import describe_dropped, describe_story, trace

    found = trace(args)
    if args.json:
        print(json.dumps(found, indent=2))
    elif args.dropped:
        print(describe_dropped(found))
    else:
        print("\n\n".join(map(describe_story, found)))
    return 0


def _explain(args: argparse.Namespace) -> int:
    from flows.explain import describe, explain

    with _own_lines():
        found = explain(args.run, args.prompt, args.output, args.top)
    print(json.dumps(found, indent=2) if args.json else describe(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
