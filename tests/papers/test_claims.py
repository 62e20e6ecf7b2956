"""CLAIMS.md: every verdict is one, and points to tests that exist. And the claims that no other test shows."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

import nqm
from nqm import EMA, FREE, SGD, NoisyQuadratic, Preconditioned
from nqm.papers.zhang2019 import constant as zhang2019

ROOT = Path(__file__).parents[2]
ROWS_AT_LEAST = {"zhang2019": 12, "wen2020": 10, "smith2018": 12, "mori2021": 5}
NETWORKS = "### "  # opens the part of a section that is about networks
LINK = re.compile(r"\[`(?P<file>test_\w+\.py)::(?P<test>test_\w+)`\]\((?P<target>[^)]*)\)")


def sections():
    """By the first word of their headings: the lines of each paper."""
    parts = re.split(r"(?m)^## (\w+).*$", (ROOT / "CLAIMS.md").read_text(encoding="utf-8"))
    return {name: body.strip().splitlines() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def rows():
    """(paper, cells) of every row of every table about the model; a pipe with a backslash before it is text."""
    found = []
    for paper, section in sections().items():
        lines = list(takewhile(lambda line: not line.startswith(NETWORKS), section))
        cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
        assert not cells or cells[:2] == [["claim", "verdict", "shown by"], ["---"] * 3]
        found += [(paper, row) for row in cells[2:]]
    return found


@cache
def defined(file):
    """Names of the functions at the top of a module of tests."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_paper_has_its_claims():
    papers = [paper for paper, _ in rows()]
    assert list(sections()) == [*ROWS_AT_LEAST, "jastrzebski2021"]
    for paper, least in ROWS_AT_LEAST.items():
        assert papers.count(paper) >= least
    assert "jastrzebski2021" not in papers  # the model has no answer of its own
    for paper in ("wen2020", "jastrzebski2021"):
        assert f"{NETWORKS}{paper} on networks" in sections()[paper]


def test_the_document_has_no_other_links():
    text = (ROOT / "CLAIMS.md").read_text(encoding="utf-8")
    on_networks = sum(line.count("](") for line in text.splitlines() if line.startswith("Each by the mean over seeds"))
    assert text.count("](") == sum(len(LINK.findall(row[2])) for _, row in rows()) + 2 + on_networks
    for folder in ("figures", "figures/validation"):
        assert (ROOT / folder / "README.md").exists()


@pytest.mark.parametrize(("paper", "row"), rows(), ids=[f"{paper}-{i}" for i, (paper, _) in enumerate(rows())])
def test_a_claim_has_a_verdict_and_tests(paper, row):
    claim, verdict, shown = row
    assert claim
    assert re.match(r"(yes|no|under)\b", verdict)
    links = list(LINK.finditer(shown))
    assert links
    assert LINK.sub("", shown).replace(",", "").strip() == ""
    for link in links:
        assert Path(link["target"]).parts[0] == "tests"
        assert Path(link["target"]).name == link["file"]
        assert link["test"] in defined(link["target"])


# --- zhang2019: what no other test shows ------------------------------------------------------------------------------

PROBLEM = NoisyQuadratic.power_law(10_000)
SMALL, LARGE = 4.0, 2.0**20  # the paper's batch sizes end here, where examples and steps are fewest


@cache
def ends(kind, power):
    """Fewest steps at the smallest and at the largest batch size."""
    core = {"SGD": SGD(FREE), "momentum": SGD(FREE, FREE), "momentum 0.9": SGD(FREE, 0.9), "EMA": EMA(SGD(FREE), FREE)}
    optimizer = Preconditioned(core[kind], power) if power else core[kind]
    return [nqm.tune(PROBLEM, optimizer, batch, zhang2019.TARGET).steps for batch in (SMALL, LARGE)]


def critical(kind, power=0.0):
    """Fewest examples over fewest steps."""
    small, large = ends(kind, power)
    return small * SMALL / large


def test_momentum_is_a_higher_learning_rate():
    """lr h = 0.0005: rate 1 - r of the root nearest to 1, steady state, and what is left of the start."""
    found = zhang2019.compute_2()
    rate = (1.0 - found["rate"]) / (1.0 - found["rate_effective"])
    steady = found["steady_state"] / found["steady_state_effective"]
    low = found["momentum"] <= 0.9
    assert np.abs(rate - 1.0)[low].max() < 0.05
    assert np.abs(steady - 1.0)[low].max() < 0.003
    assert rate[-1] == pytest.approx(1.7, abs=0.05)  # at 1 - m = 2 sqrt(lr h), next to critical damping
    left = zhang2019.compute_11()
    late = (left["steps"] >= 100) & (left["one_minus_momentum"] >= 0.1)
    assert left["momentum"][late] == pytest.approx(left["plain"][late], abs=0.03)


def test_steady_states_rise_with_the_power():
    """Eq. 10 for h / h_1 = 0.3 and 0.01 at the largest stable rates; noise is in the one coordinate."""
    for h in (0.3, 0.01):
        problem, found = NoisyQuadratic([1.0, h], noise=[0.0, 0.7]), []
        for power in (0.0, 0.25, 0.5, 0.75, 0.95):
            optimizer = Preconditioned(SGD(FREE), power)
            largest = optimizer.with_values(lr=nqm.max_stable_lr(problem, optimizer) * (1.0 - 1e-12))
            found.append(nqm.steady_state_risk(problem, largest, 4))
            assert found[-1] == pytest.approx(0.7 / 8.0 * h**-power / (1.0 - h ** (1.0 - power)), rel=1e-9)
        assert np.all(np.diff(found) > 0.0)


def test_the_bayes_bound_is_just_below_maximum_likelihood():
    mle, bayes = (nqm.bounds.examples_to_target(PROBLEM, 0.01, bound) for bound in ("mle", "bayes"))
    assert 0.985 < bayes / mle < 0.995


def test_momentum_at_small_batches():
    for power in zhang2019.POWERS:
        plain = ends("SGD", power)[0]
        assert 0.99 < ends("momentum 0.9", power)[0] / plain <= 1.0
        assert 0.785 < ends("momentum", power)[0] / plain < 0.86


def test_critical_batch_sizes():
    plain = critical("SGD")
    assert critical("momentum") / plain == pytest.approx(38.0, abs=0.5)
    assert critical("SGD", 0.5) / plain == pytest.approx(19.0, abs=0.5)
    assert critical("EMA") / plain == pytest.approx(1 / 7, rel=0.02)
    assert ends("SGD", 0.0)[1] / ends("momentum", 0.0)[1] == pytest.approx(45.0, abs=0.5)
    assert ends("EMA", 0.0)[0] / ends("SGD", 0.0)[0] == pytest.approx(0.144, abs=0.001)
    assert 0.99 < ends("EMA", 0.0)[1] / ends("SGD", 0.0)[1] <= 1.0
    for power in zhang2019.POWERS[1:]:
        assert critical("momentum", power) > critical("SGD", power) > 3.0 * plain
        assert critical("EMA", power) < critical("SGD", power)
