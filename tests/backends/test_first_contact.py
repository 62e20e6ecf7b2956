"""What a first question waits for: what is compiled, what is said of it, and how to have it done ahead."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nqm
from nqm.backends import compilation
from nqm.backends.kernels import blocks
from nqm.cli import main

BACKENDS = Path(compilation.__file__).parent

QUICK = """
import numpy as np
from nqm.backends.kernels import scaling as kernels
from nqm.scaling.models.modes import Pieces
def ask(_=None):
    pieces = Pieces(np.array([0, 1]), np.ones(1), np.ones(1), np.ones(1, dtype=np.int64))
    kernels.fill_effective_lrs(pieces, 0.1, 0.0, np.empty(1), np.empty((1, 2)))
"""
THREADS = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(3) as pool:
    list(pool.map(ask, range(6)))
"""
NOT_OURS = """
import numba
numba.njit(lambda x: x + 1)(1)
"""
NO_FOLDER = "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []\n"
"""As where neither the package nor the home can be written to: Numba finds no place for a cache."""


def at_terminal(program, **environment):
    """What a process says on stderr, a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
            env={**os.environ, **environment}, check=False,
        )  # fmt: skip
        os.write(theirs, b"END\n")  # something to read where nothing was said
        text = b""
        while b"END" not in text:
            text += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    said = text.decode().replace("\r\n", "\n").removesuffix("END\n")
    assert done.returncode == 0, said
    return said


def run(*words, **environment):
    """stdout and stderr, pipes, of a Python process."""
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_compiling_says_so_once_at_a_terminal_and_only_when_it_compiles(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path), "NQM_CACHE": "1"}
    said = at_terminal(QUICK + NOT_OURS + THREADS, **cache)
    assert said.count("\n") == 1
    assert said.startswith(f"nqm: compiling for the first use, about ten seconds; kept in {tmp_path}")
    assert at_terminal(QUICK + NOT_OURS + "ask()", **cache) == ""


def test_compiling_is_silent_where_stderr_is_no_terminal(tmp_path):
    assert run("-c", QUICK + "ask()", NUMBA_CACHE_DIR=str(tmp_path), NQM_CACHE="1") == ("", "")
    assert any(tmp_path.rglob("*.nbc"))  # it did compile
    run("-c", QUICK + "import sys; sys.stderr = None; ask()", NQM_CACHE="0")


@pytest.mark.parametrize(
    ("before", "switch", "reason"),
    [("", "0", "NQM_CACHE=0"), (NO_FOLDER, "1", "no folder to write to, set NUMBA_CACHE_DIR")],
    ids=["switched off", "no folder"],
)
def test_compiling_says_when_nothing_is_kept(before, switch, reason):
    said = at_terminal(before + QUICK + "ask()", NQM_CACHE=switch)
    assert said == f"nqm: compiling for the first use, about ten seconds; not kept: {reason}\n"


def test_python_cannot_call_what_has_no_wrapper_for_it():
    with pytest.raises(TypeError, match="total: expected a call from compiled code, got one from Python"):
        blocks.total(np.ones(blocks.BLOCK))


def test_only_kernels_that_python_calls_have_wrappers_for_it():
    modules = [
        importlib.import_module(f"nqm.backends.kernels.{module.name}")
        for module in pkgutil.iter_modules([str(BACKENDS / "kernels")])
    ]
    values = [value for module in modules for value in vars(module).values() if not isinstance(value, type)]
    functions = {id(value): value for value in values if hasattr(value, "_numba_type_")}.values()
    assert len(functions) == len(compilation.kernels) > 50
    called = {function.__name__ for function in functions if not isinstance(function, compilation.internal)}
    imported = set()
    for source in [*BACKENDS.glob("*.py"), *BACKENDS.parent.glob("*/*.py")]:
        if source.parent.name != "kernels":
            imported |= set(re.findall(r"\w+", source.read_text(encoding="utf-8")))
    assert called <= imported


def test_one_signature_a_kernel():
    """Of one state: however arrays are cut and whoever may write to them."""
    program = """
import numpy as np, nqm
from nqm.backends import compilation
schedule = nqm.Schedule([0.3, 0.2, 0.1], [70, 5, 100])
for nodes in (3, 300):  # one block and three
    problem = nqm.NoisyQuadratic(1.0 / np.arange(1.0, nodes + 1.0))
    nqm.risk(problem, nqm.SGD(schedule), 4, 175)
    nqm.risk(problem, nqm.SGD(schedule), nqm.Schedule([4, 8], 90), [10, 100, 175])
    nqm.steps_to_target(problem, nqm.SGD(schedule), 64, 1e-9)
    nqm.steps_to_target(problem, nqm.SGD(0.1), 64, 0.5)
    nqm.steps_to_target(problem, nqm.SGD(0.1), [64, 128], 0.5)
nqm.tune(problem, nqm.SGD(nqm.FREE), 64, 0.5)
nqm.optimize_schedule(problem, 64, steps=20, pieces=2, restarts=1)
public = [k for k in compilation.kernels if k.signatures and not k.targetoptions.get("no_cpython_wrapper")]
print(len(public), [k.__name__ for k in public if len(k.signatures) > 1])
"""
    assert run("-c", program)[0] == "10 []\n"


def test_after_warmup_a_process_compiles_nothing(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path), "NQM_CACHE": "1"}
    words = ("-m", "nqm", "warmup", "scaling", "features")
    said, progress = run(*words, **cache)
    assert " functions compiled in " in said
    assert f"kept in {tmp_path}" in said
    assert [line.split(":")[0] for line in progress.splitlines()] == ["[1/2] scaling", "[2/2] features"]
    assert "nothing to compile" not in progress
    files = sorted(tmp_path.rglob("*"))
    answer, progress = run(*words, "--json", **cache)
    assert json.loads(answer)["compiled"] == 0
    assert progress.count("nothing to compile") == 2
    question = """
import nqm
from nqm.backends import compilation
problem = nqm.NoisyQuadratic.power_law(50, noise_model="gaussian-features", label_noise=1.0)
nqm.steps_to_target(problem, nqm.SGD(0.1, 0.9), 64, 0.6)
print(compilation.compilations())
"""
    assert run("-c", question, **cache)[0] == "0\n"
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.timeout(600)  # on a first run, for all that is compiled
def test_warmup_is_all_that_usual_questions_need():
    """After it no kernel is asked for with types that it has not been compiled for."""
    program = """
import nqm
from nqm import FREE
from nqm.backends import compilation
from nqm.cli.warmup import warmup
warmup()
def count():
    return sum(len(kernel.signatures) for kernel in compilation.kernels)
before = count()
problem, schedule = nqm.NoisyQuadratic.power_law(10_000), nqm.schedules.cosine(1.0, 300)
for momentum in (0.0, 0.9):
    for wrap in (lambda o: o, lambda o: nqm.EMA(o, 0.9)):
        nqm.risk(problem, wrap(nqm.SGD([0.1, 0.2], momentum)), 256, 1000)
        nqm.risk(problem, wrap(nqm.SGD(schedule, momentum)), 256, [100, 300])
        nqm.steps_to_target(problem, wrap(nqm.SGD(0.5, momentum)), [4096, 8192], 0.1)
        nqm.steps_to_target(problem, wrap(nqm.SGD(0.5, momentum)), 4096, 0.1, crossing="last")
        nqm.steps_to_target(problem, wrap(nqm.SGD(schedule, momentum)), 4096, 0.5)
nqm.sweep(problem, {"SGD": nqm.SGD(FREE), "EMA": nqm.EMA(nqm.SGD(FREE), FREE)}, [256], 0.1)
nqm.tune(problem, nqm.Preconditioned(nqm.SGD(FREE, FREE), 0.5), 4096, 0.1)
nqm.optimize_schedule(problem, 256, target=0.1, pieces=4, restarts=1)
print(count() - before)
"""
    assert run("-c", program, NQM_CACHE="1")[0] == "0\n"


def test_warmup_refuses(capsys, tmp_path):
    assert main(["warmup", "everything"]) == 2
    assert "unknown part 'everything': expected one of risk, crossing, tune" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "nqm", "warmup", "features"], env={**os.environ, "NQM_CACHE": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "nqm warmup: expected a folder that keeps compiled code, got not kept: NQM_CACHE=0\n"


def test_figures_do_not_go_where_a_checkout_has_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figures").mkdir()
    assert main(["figures", "zhang2019-2"]) == 0
    assert not any((tmp_path / "figures").iterdir())
    names = {path.name for path in (tmp_path / "nqm-figures").iterdir()}
    assert names == {"README.md", "zhang2019-2.csv", "zhang2019-2.png"}


HELPER = """
from ..compilation import internal

@internal
def helper(x):
    return x + 1.0
"""
CALLER = """
from ..compilation import compiled
from .a_helper import helper

@compiled
def caller(x):
    return 2.0 * helper(x)
"""
CALL = """
from nqm.backends import compilation
from nqm.backends.kernels.a_caller import caller
print(caller(1.0), compilation.compilations())
"""


def copied_package(tmp_path):
    """A copy of the package with two more files of kernels, and the environment that runs it."""
    shutil.copytree(Path(nqm.__file__).parent, tmp_path / "nqm", ignore=shutil.ignore_patterns("__pycache__"))
    kernels = tmp_path / "nqm" / "backends" / "kernels"
    (kernels / "a_helper.py").write_text(HELPER)
    (kernels / "a_caller.py").write_text(CALLER)
    there = {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}  # and not where the tests run
    return kernels, {**there, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NQM_CACHE": "1"}


def test_what_calls_an_edited_function_of_another_file_is_compiled_anew(tmp_path):
    kernels, environment = copied_package(tmp_path)
    assert run("-c", CALL, **environment)[0] == "4.0 2\n"
    assert run("-c", CALL, **environment)[0] == "4.0 0\n"
    (kernels / "a_helper.py").write_text(HELPER.replace("1.0", "2.0"))
    assert run("-c", CALL, **environment)[0] == "6.0 2\n"
    assert run("-c", CALL, **environment)[0] == "6.0 0\n"


def test_nothing_is_kept_where_numba_has_no_stamp_to_replace(tmp_path):
    _, environment = copied_package(tmp_path)
    hidden = """
from numba.core.caching import IndexDataCacheFile as Index
made = Index.__init__
def without(self, *words, **more):
    made(self, *words, **more)
    del self._source_stamp
Index.__init__ = without
"""
    question = hidden + CALL + "print(compilation.kept()[1])"
    for _ in range(2):
        told = run("-c", question, **environment)[0].splitlines()
        assert told[0] == "4.0 2"
        assert told[1].startswith("not kept: this version of Numba cannot tell")
    assert not list((tmp_path / "cache").rglob("*.nb?"))
