"""The doors of the house: who may import whom, and what no module may be called."""

import ast
import importlib.metadata
import re
import sys

import pytest
from pydantic import BaseModel

from sft_core import config
from tests.conftest import ROOT

ROOMS = ("flows", "tasks", "data_checks", "sft_core")
MAY_IMPORT = {
    "flows": {"flows", "tasks", "data_checks", "sft_core"},
    "tasks": {"tasks", "data_checks", "sft_core"},
    "data_checks": {"data_checks", "sft_core"},
    "sft_core": {"sft_core"},
}
CONTRACTS = {"config", "reports", "errors", "records"}
CHECKS_MAY_IMPORT = {"validation": {"intake"}}
"""Sub-packages of data_checks know one another no further; all share its flat modules."""
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for module in imports(path):
        top, *rest = module.split(".")
        if top in ROOMS:
            assert top in MAY_IMPORT[room], f"{room} must not import {module}"
        if room == "data_checks" and top == "sft_core":
            assert rest[:1] in [[name] for name in CONTRACTS], (
                f"data_checks takes {module}, not a contract"
            )
        if (
            room == top == "data_checks"
            and len(rest) == 2
            and len(path.parts) > len(ROOT.parts) + 2
        ):
            own, other = path.parent.name, rest[0]
            assert other in {own} | CHECKS_MAY_IMPORT.get(own, set()), f"{own} takes {module}"
        if room in ("data_checks", "sft_core"):
            assert top not in ("prefect", "mlflow"), f"{room} must not know {top}"
        if room == "data_checks":
            assert top not in ("torch", "transformers", "peft", "trl")


@pytest.mark.parametrize(
    ("library", "only"),
    [
        ("mlflow", {"tasks/tracking.py", "tasks/window.py"}),  # one writes, the other one reads
        ("great_expectations", {"data_checks/validation/expectations.py"}),
    ],
)
def test_no_other_module_speaks_to(library, only):
    users = {
        name_of(path)
        for path in FILES
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert users == only


def test_no_module_is_named_after_a_dependency_or_the_standard_library():
    requirements = importlib.metadata.requires("tunetrail")
    dependencies = {re.split(r"[^\w-]", r)[0].replace("-", "_").lower() for r in requirements}
    taken = dependencies | set(sys.stdlib_module_names)
    names = {path.stem for path in FILES} - {"__init__"}
    assert not names & taken


def sections():
    return [
        item
        for item in vars(config).values()
        if isinstance(item, type)
        and issubclass(item, config.Section)
        and item is not config.Section
    ]


def test_every_config_field_is_read_by_code():
    """A knob that nothing reads is a lie to the user. `policy` limits are read by name in gates."""
    words = set()
    for path in FILES:
        if path.parent.name == "config":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    card = (ROOT / "sft_core/documents/templates/card.md.jinja").read_text()
    words |= set(re.findall(r"config\.card\.(\w+)", card))
    # Handed to PEFT's configs as they are.
    passed_whole = {"LoraSection", "Ia3Section", "PromptTuningSection", "PrefixTuningSection"}
    for section in sections():
        if section.__name__ in passed_whole:
            continue
        unread = [name for name in section.model_fields if name not in words]
        assert not unread, f"{section.__name__}: nothing reads {unread}"


def test_every_config_field_has_a_help_line():
    for section in sections():
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_every_number_of_the_config_has_a_bound():
    for section in sections():
        if not issubclass(section, BaseModel):
            continue
        schema = section.model_json_schema()["properties"]
        for name, field in schema.items():
            for part in field.get("anyOf", [field]):
                if part.get("type") in ("integer", "number"):
                    bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
                    assert bounds & set(part), f"{section.__name__}.{name} has no bound"
