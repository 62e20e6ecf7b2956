"""The shape of the code: how many files a number passes, how long files and functions are, and what no file may ask."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import nqm

ROOT = Path(nqm.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


# --- a number on its way through the house ---------------------------------------------------------------------

TARGET, BATCH_SIZE = 0.0123456789, 237.5
MOST_FILES = 6
GENERAL = "_checks.py"  # takes any argument as `value`

PROBLEM = nqm.NoisyQuadratic([1.0, 0.3, 0.02], [0.5, 0.2, 0.01])
SCHEDULED = nqm.SGD(nqm.Schedule([0.5, 0.1], [40, 200]), momentum=0.5)
CALLS = {
    "steps_to_target": lambda: nqm.steps_to_target(PROBLEM, nqm.SGD(0.1, momentum=0.5), BATCH_SIZE, TARGET),
    "risk along a schedule": lambda: nqm.risk(PROBLEM, SCHEDULED, BATCH_SIZE, 230),
}


def holders(name, value, number):
    """Under which names a variable holds the number: its own, or those of a NamedTuple's fields."""
    if isinstance(value, float | np.generic):
        return {name} if value == number else set()
    if isinstance(value, np.ndarray):
        return {name} if value.dtype.kind == "f" and bool(np.any(value == number)) else set()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {
            found for field, entry in zip(value._fields, value, strict=True) for found in holders(field, entry, number)
        }
    return set()


def passed(call, numbers):
    """{file: names} of the functions of nqm that are called with one of the numbers."""
    found = defaultdict(set)

    def look(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and ROOT in path.parents:
            for name, value in list(frame.f_locals.items()):
                for number in numbers:
                    found[name_of(path)] |= holders(name, value, number)

    call()  # compiles, and loads what is imported late
    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(before)
    return {file: names for file, names in found.items() if names and file != GENERAL}


@pytest.mark.parametrize(
    ("call", "numbers", "allowed"),
    [
        ("steps_to_target", (TARGET,), {"target", "target_risk"}),
        ("steps_to_target", (BATCH_SIZE, 1.0 / BATCH_SIZE), {"batch_size", "inverse_batch_size"}),
        ("risk along a schedule", (BATCH_SIZE, 1.0 / BATCH_SIZE), {"batch_size", "inverse_batch_size"}),
    ],
    ids=["target", "batch size", "batch size along a schedule"],
)
def test_a_number_passes_few_files_under_one_name(call, numbers, allowed):
    """What whoever follows it has to read."""
    files = passed(CALLS[call], numbers)
    assert files
    assert len(files) <= MOST_FILES, files
    assert {name for names in files.values() for name in names} <= allowed, files


# --- sizes -----------------------------------------------------------------------------------------------------

LONGEST_FILE, LONGEST_FUNCTION = 450, 60
LONG_FUNCTIONS = {
    "backends/kernels/first_passage.py:first_passage": "one loop of leaps: cut in two it takes 40% longer",
}
"""{"file.py:function": why it is longer than the others may be}."""


def functions(tree, path):
    """(name, lines without the docstring) of every function, methods and inner ones as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                lines -= first.end_lineno - first.lineno + 1
            yield f"{name_of(path)}:{node.name}", lines


def test_no_file_is_long():
    """Nor one of tests."""
    paths = [*SOURCES, *Path(__file__).parent.rglob("*.py")]
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert not {name: count for name, count in lines.items() if count > LONGEST_FILE}


def test_no_function_is_long():
    """But for those that are listed, each with its reason, and none that is no longer long."""
    lengths = {}
    for path in SOURCES:
        for name, lines in functions(ast.parse(path.read_text(encoding="utf-8")), path):
            lengths[name] = max(lines, lengths.get(name, 0))
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}
    assert not {name: lines for name, lines in long.items() if name not in LONG_FUNCTIONS}
    assert not LONG_FUNCTIONS.keys() - long.keys()


# --- names -----------------------------------------------------------------------------------------------------


def public_modules():
    """Modules of nqm itself without an underscore, and all packages."""
    paths = [path for path in ROOT.glob("*.py") if not path.stem.startswith("_")]
    names = ["nqm", *(f"nqm.{path.stem}" for path in paths)]
    return sorted(
        [*names, *(f"nqm.{name_of(path.parent).replace('/', '.')}" for path in ROOT.glob("*/**/__init__.py"))]
    )


@pytest.mark.parametrize("name", public_modules())
def test_a_public_module_says_what_is_public(name):
    if name.startswith("nqm.validation"):
        pytest.importorskip("torch")
    module = importlib.import_module(name)
    assert not [public for public in module.__all__ if not hasattr(module, public)]
    assert len(set(module.__all__)) == len(module.__all__)


# --- what is decided once --------------------------------------------------------------------------------------

ASKED_ELSEWHERE = {
    r"label_noise is (not )?None": ("problems/", "dynamics/"),  # whose noise it is
    r"\"momentum\" (not )?in\b": (),  # a hyperparameter's name is no optimizer's kind
}


@pytest.mark.parametrize("question", ASKED_ELSEWHERE)
def test_what_is_decided_once_is_not_asked_again(question):
    found = [
        f"{name_of(path)}:{number}"
        for path in SOURCES
        if not name_of(path).startswith(ASKED_ELSEWHERE[question])
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(question, line)
    ]
    assert not found
