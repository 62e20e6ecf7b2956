"""The project as a whole: its files, what an import loads, the README's numbers. Lint, types, notebooks: .ci/."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import nqm

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*command: str, **environment: str) -> str:
    """Standard output of a command run in the root of the project; it must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def tool(name: str) -> str:
    """A program of the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)


def test_one_version():
    assert metadata.version("nqm") == nqm.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == nqm.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (\S+)", changes)[0] == nqm.__version__


LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def linked_files() -> list[str]:
    """What README's links lead to in the project."""
    links = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    return [link for link in links if not link.startswith(("https://", "#"))]


def test_one_address():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["repository-code"] == PROJECT["project"]["urls"]["Source"]
    assert len(linked_files()) > 10
    assert not [file for file in linked_files() if not (ROOT / file).is_file()]


def test_sdist_is_whole(tmp_path):
    """It holds all tests, and what they and README's links lead to."""
    clean = tmp_path / "source"  # elsewhere, setuptools takes what an older build listed
    shutil.copytree(ROOT, clean, ignore=shutil.ignore_patterns(".*_cache", ".git", ".venv", "*.egg-info", "build"))
    build = f"import os; os.chdir({str(clean)!r}); from setuptools.build_meta import build_sdist; build_sdist('..')"
    run(sys.executable, "-c", build)
    with tarfile.open(tmp_path / f"nqm-{nqm.__version__}.tar.gz") as file:
        held = {name.partition("/")[2] for name in file.getnames()}
        page = file.extractfile(f"nqm-{nqm.__version__}/PKG-INFO").read().decode()
    wanted = {
        *linked_files(),
        ".ci/run",
        "CONTRIBUTING.md",
        "conftest.py",
        "docs/architecture.svg",
        "figures/validation/README.md",
        "setup.cfg",
    }
    for folder in ("docs", "nqm", "notebooks", "tests"):
        wanted |= {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".cu")}
    assert not wanted - held
    source = PROJECT["project"]["urls"]["Source"]  # PyPI shows README too, where relative links lead nowhere
    links = LINK.findall(page)
    assert len(links) >= len(linked_files()) > 10
    assert all(link.startswith(("https://", "#")) for link in links)
    for file in linked_files():
        assert {f"{source}/blob/main/{file}", f"{source}/raw/main/{file}"} & set(links)


def test_workflows():
    """They run README's command, the scripts that are here, and the Pythons that the project says it runs on."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    jobs = {name: job for text in texts for name, job in yaml.safe_load(text)["jobs"].items()}
    commands = {name: [step["run"] for step in job.get("steps", ()) if "run" in step] for name, job in jobs.items()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert commands["readme"][-1] == readme.split("<!-- test -->\n```sh\n")[1].split("\n```")[0]
    words = {word for lines in commands.values() for line in lines for word in line.split()}
    scripts = {word for word in words if word.startswith(".ci/")}
    assert scripts == {".ci/lint", ".ci/notebooks", ".ci/oldest", ".ci/processors", ".ci/wheel"}
    assert all((ROOT / script).is_file() for script in scripts)
    named = [c.rpartition(" :: ")[2] for c in PROJECT["project"]["classifiers"] if ":: Python :: 3." in c]
    assert jobs["core"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


def test_import_is_light():
    heavy = ("numba", "scipy", "matplotlib", "pandas", "torch", "cupy", "tqdm")
    loaded = run(sys.executable, "-c", "import sys, nqm; print(*sys.modules)").split()
    assert not [name for name in heavy if name in loaded]


def test_command_from_elsewhere(tmp_path):
    """The installed command, not the package that happens to lie in the current directory."""
    done = subprocess.run([tool("nqm"), "figures", "--list"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "zhang2019-3a" in done.stdout
    words = ["steps", "--batch-size", "8", "--target", "0.5", "--lr", "0.1", "--dim", "10"]
    done = subprocess.run([tool("nqm"), *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "steps" in done.stdout


def test_command_as_a_module():
    assert run(sys.executable, "-m", "nqm", "--version") == f"nqm {nqm.__version__}\n"


def test_works_where_no_cache_can_be_written(tmp_path):
    """Numba finds no cache directory: the code is compiled for the process, and the answer is the same."""
    program = "import nqm; print(repr(nqm.risk(nqm.NoisyQuadratic([1.0]), nqm.SGD(0.5), 4, 3)))"
    blocked = "from numba.core.caching import CacheImpl as c; c._locator_classes = []; "
    assert run(sys.executable, "-c", blocked + program) == run(sys.executable, "-c", program, NQM_CACHE="0")


def test_every_notebook_is_named_in_the_readme():
    """And numbered, so that there is an order to read them in."""
    named = {file for file in linked_files() if file.startswith("notebooks/") and file.endswith(".py")}
    assert named == {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS}
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02d}_" for number in range(1, len(NOTEBOOKS) + 1)]


def test_numbers_in_the_readme():
    """The examples' answers, as printed in its comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].split("result = ")[0]
    space: dict = {}
    exec(code, space)
    best = space["best"]
    lr, momentum = best.optimizer.lr, best.optimizer.momentum
    assert f"# {best.steps} steps, lr {lr:.3g}, momentum {momentum:.4g}\n" in code
    problem = space["problem"]
    steps = nqm.steps_to_target(problem, nqm.SGD(0.5, momentum=0.9), batch_size=4096, target=0.01)
    assert f"# {steps}\n" in code
    schedule, constant = space["schedule"], nqm.tune(problem, nqm.SGD(nqm.FREE), 256, 0.01)
    assert f"# {schedule.steps} steps, where the best constant learning rate takes {constant.steps}\n" in code


def test_scaling_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("## Scaling")[1].split("```python\n")[1].split("```")[0]
    space: dict = {"nqm": nqm}
    for name, call in (("again", "fit.floor"), ("loss", "fit.predict"), ("answer", "fit.best")):
        code = code.replace(f"\n{call}", f"\n{name} = {call}")
    exec(code, space)
    assert f"# {space['loss']:.3f}\n" in code
    assert space["again"] == pytest.approx(space["loss"], rel=1e-3)
    assert space["answer"].steps <= 20_000


def test_large_problems_of_the_readme():
    """The lines as they stand, on a smaller map, and with the reference in the place of a GPU."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = "".join(part.split("```")[0] for part in text.split("## Large problems")[1].split("```python\n")[1:3])
    assert code.count(", 100)") == 3
    assert code.count('"cupy"') == 1
    small = code.replace(", 100)", ", 3)").replace('"cupy"', '"numpy"').replace("nqm.steps_to_target", "ask")
    found = []

    def ask(*arguments, **named):
        found.append(nqm.steps_to_target(*arguments, **named))

    exec(
        small,
        {"__name__": "__main__", "nqm": nqm, "problem": nqm.NoisyQuadratic.power_law(10_000).binned(20), "ask": ask},
    )
    assert found[0].shape == (3, 3, 3)
    assert (found[0] == found[1]).all()


def test_the_package_explains_itself_without_torch():
    """What looks at all names does not load nqm.validation, and may ask whether it is there."""
    program = (
        "import sys; sys.modules['torch'] = None; import inspect, pydoc, nqm; "
        "print(len(pydoc.render_doc(nqm)) > 1000, len(inspect.getmembers(nqm)) > 20, hasattr(nqm, 'validation'))"
    )
    assert run(sys.executable, "-c", program).split() == ["True", "True", "False"]
