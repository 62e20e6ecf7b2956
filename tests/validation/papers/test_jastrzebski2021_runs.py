"""What jastrzebski2021's jobs do, at small sizes: identities of traces, pairs of runs, continuations."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from nqm.validation import mlp
from nqm.validation.papers.jastrzebski2021 import protocol, runs


@pytest.fixture
def tiny(monkeypatch):
    """A network of 325 parameters."""
    monkeypatch.setitem(protocol.NETWORKS, "tiny", partial(mlp, width=5))
    return {"data": "digits", "net": "tiny", "seed": 1}


COURSE = {
    "kind": "course", "lr": 0.02, "batch_size": 64, "steps": 12, "method": "none", "coefficient": 0.0, "every": 1,
    "start": 0, "part": 0, "first": -4,
}  # fmt: skip


def test_a_penalty_of_coefficient_0_is_none_and_one_that_starts_late_is_none_until_then(tiny):
    plain = runs.run(**tiny, **COURSE)
    assert plain["step"].tolist() == [0, 4, 8, 12]
    for changes, until in (({"method": "FP"}, 4), ({"method": "GP", "coefficient": 3.0, "start": 8}, 3)):
        other = runs.run(**tiny, **{**COURSE, **changes})
        for name in ("training loss", "held-out accuracy", "Tr F", "Tr F of a batch"):
            assert other[name][:until].tolist() == plain[name][:until].tolist()
        assert (other["training loss"][3] == plain["training loss"][3]) == (until == 4)


def test_a_penalty_of_the_whole_batch_is_the_batch_penalty(tiny):
    whole = {**COURSE, "method": "FP", "coefficient": 0.5}
    found = [runs.run(**tiny, **{**whole, "part": part})["training loss"].tolist() for part in (0, 64, 16)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    assert abs(found[2][-1] / found[0][-1] - 1.0) > 1e-4


def test_a_batch_has_the_trace_over_its_size(tiny):
    """E Tr(F^B) = Tr(F) / B, to the standard error of as many batches: their spread is at most that of chi-squared."""
    found = runs.run(kind="identity", **tiny, lr=0.02, at=[1, 8], batches=400)
    ratio = 64.0 * found["Tr F of a batch"] / found["Tr F"]
    np.testing.assert_allclose(ratio, 1.0, atol=4.0 * math.sqrt(2.0 / 400.0))


def test_uniform_labels_under_a_uniform_model_give_the_trace(tiny):
    found = runs.run(kind="uniform", **tiny, redraws=40)
    assert found["squared norm"][0] == pytest.approx(found["Tr F"][0], rel=0.05)


def test_wrong_labels_are_told_apart(tiny):
    found = runs.run(kind="noisy", **tiny, lr=0.05, steps=60, share=0.5, method="mixup", coefficient=0.4, spacing=30)
    assert found["step"].tolist() == [0, 30, 60]
    assert found["clean accuracy"][-1] > found["noisy accuracy"][-1]
    assert found["noisy gradient norm"][-1] > found["clean gradient norm"][-1]


def test_continuations_go_on_from_one_early_run(tiny):
    settings = {"early_rate": 0.02, "early_batch": 64, "rate": 0.05, "batch_size": 32, "steps": 30}
    found = runs.run(kind="continued", **tiny, **settings, until=2.0, continuations=2)
    assert len(set(found["early Tr F"].tolist())) == 1
    assert len(set(found["Tr H"].tolist())) == 2
    assert np.all(found["training loss"] < 2.0)
    lost = runs.run(kind="continued", **tiny, **{**settings, "rate": 1e3}, until=2.0, continuations=1)
    assert lost["early Tr F"][0] > 0.0
    assert np.isnan([lost[name][0] for name in ("step", "held-out accuracy", "training loss", "Tr H")]).all()
    never = runs.run(kind="continued", **tiny, **{**settings, "early_rate": 1e-9}, until=1e-9, continuations=1)
    assert np.isnan(never["Tr H"][0])


def test_curvature_and_cost_are_recorded(tiny):
    found = runs.run(kind="curvature", **tiny, lr=0.02, batch_size=64, steps=8, at=[0, 8], traces=["Tr F"])
    assert found["step"].tolist() == [0, 8]
    assert np.all(found["Tr F"] > 0.0)
    methods = [["none", 0.0, 1], ["FP", 0.1, 1]]
    cost = runs.run(kind="cost", **tiny, lr=0.02, methods=methods, epochs=3)
    seconds = [np.median(cost.select(method=place)["seconds"]) for place in (0, 1)]
    assert seconds[1] > seconds[0] > 0.0
