"""What a measurement takes: examples, modules and mappings, and what it says to bad input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_nets import close, examples, find, net
from torch import nn

from nqm.validation.measurement import measure as measuring
from nqm.validation.measurement.measure import measure
from nqm.validation.training.functional import parameters_of


def test_examples_are_drawn_without_replacement(monkeypatch):
    full, again = find(net()), find(net(), examples=20, seed=7)
    close(again.curvature, full.curvature)
    seen = []
    real = measuring.find_curvature
    monkeypatch.setattr(measuring, "find_curvature", lambda m, o, t: seen.append(o.x) or real(m, o, t))
    for seed in (1, 1, 2):
        find(net(), examples=9, seed=seed)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert len(torch.unique(seen[0], dim=0)) == 9


def test_at_takes_modules_and_mappings_and_changes_nothing():
    start, there = net(0), net(1)
    before = [copy.deepcopy(m.state_dict()) for m in (start, there)]
    found = [find(start, at=at) for at in (there, there.state_dict(), parameters_of(there), there.double())]
    assert all(np.array_equal(one.curvature, found[0].curvature) for one in found)
    for model, kept in zip((start, there), before, strict=True):
        assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
        assert all(p.grad is None for p in model.parameters())


def test_dropout_is_off():
    model = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    assert np.array_equal(find(model).curvature, find(model).curvature)
    assert model.training


def test_auto_takes_ekfac_beyond_the_limit(monkeypatch):
    assert find(net()).provenance["curvature"] == "ggn"
    monkeypatch.setattr(measuring, "DENSE_LIMIT", 38)
    assert find(net()).provenance["curvature"] == "ekfac"


def test_bad_inputs():
    x, y = examples()
    good = net()
    names = {"0.weight", "0.bias", "2.weight", "2.bias"}
    state = good.state_dict()
    assert set(state) == names
    nan = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    cases = [
        (TypeError, "torch.nn.Module", lambda: find("net")),
        (ValueError, "no batch norm", lambda: find(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)))),
        (ValueError, "expected one of auto, ggn, hessian, ekfac, got 'kfac'", lambda: find(good, curvature="kfac")),
        (ValueError, "empty loader", lambda: find(good, data=[])),
        (TypeError, "data: expected", lambda: find(good, data=3)),
        (ValueError, "device: expected one that is here", lambda: measure(good, F.cross_entropy, (x, y), device="abc")),
        (ValueError, "at least 2 and at most the 20", lambda: find(good, examples=21)),
        (ValueError, "at least 2 and at most the 20", lambda: find(good, examples=1)),
        (ValueError, "at least 2 and at most the 1 ", lambda: find(good, data=(x[:1], y[:1]))),
        (TypeError, "whole number", lambda: find(good, examples=2.5)),
        (TypeError, "whole number", lambda: find(good, examples=True)),
        (ValueError, "got no '2.bias'", lambda: find(good, at={k: v for k, v in state.items() if k != "2.bias"})),
        (ValueError, "got 'more' as well", lambda: find(good, at={**state, "more": x})),
        (
            ValueError,
            r"shape \(3,\) for '2.bias', got \(4,\)",
            lambda: find(good, at={**state, "2.bias": torch.ones(4)}),
        ),
        (ValueError, "got no", lambda: find(good, at=nn.Linear(5, 3))),
        (TypeError, "expected a tensor", lambda: find(good, at={**state, "2.bias": 1.0})),
        (TypeError, "at: expected a module", lambda: find(good, at=1.0)),
        (ValueError, "at: expected a finite loss there, got nan", lambda: find(good, at=nan)),
        (ValueError, "mean over examples, a scalar", lambda: find(good, lambda z, t: z.sum(1))),
        (ValueError, 'reduction="sum"', lambda: find(good, lambda z, t: F.cross_entropy(z, t, reduction="sum"))),
        (ValueError, "positive curvature", lambda: find(good, lambda z, t: z.mean())),
    ]
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()
    broken = net()
    broken.load_state_dict(nan)
    with pytest.raises(ValueError, match="the start: expected a finite loss"):
        find(broken)

    def rooted(z, t):  # finite, with an infinite slope at 0
        return (z.square().sum(1) * 0.0).sqrt().mean() + z.square().mean()

    with pytest.raises(ValueError, match="the start: expected a finite gradient"):
        find(good, rooted)
