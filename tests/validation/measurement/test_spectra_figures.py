"""Figures of measured spectra hold what was measured."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import torch.nn.functional as F
from small_nets import close, examples, find, net

from nqm.validation.papers.zhang2019 import spectra as spectra_figures


def test_figures():
    x, y = examples()
    checkpoints = {10: net(1), 0: net(0).state_dict()}
    spectra = spectra_figures.compute_spectra(net(), F.cross_entropy, (x, y), checkpoints, device="cpu")
    for step, at in checkpoints.items():
        found = find(net(), at=at, curvature="ekfac")
        here = spectra["step"] == step
        assert np.array_equal(spectra["curvature"][here], found.curvature)
        assert np.array_equal(spectra["index"][here], np.arange(1, found.dim + 1))
    variance = spectra_figures.compute_variance(found)
    close(variance["second_moment"], found.noise + found.gradient**2)
    law = spectra_figures.compute_power_law(found)
    assert law["inverse"][9] == pytest.approx(found.curvature[9])
    assert np.sum(np.isfinite(law["fitted"])) == found.power_law_fit().nodes
    for data, plot in (
        (spectra, spectra_figures.plot_spectra),
        (variance, spectra_figures.plot_variance),
        (law, spectra_figures.plot_power_law),
    ):
        assert len({len(column) for column in data.values()}) == 1
        picture = plot(data)
        picture.canvas.draw()
        assert all(ax.get_lines() for ax in picture.axes)
    darkness = [
        sum(mpl.colors.to_rgb(line.get_color())) for line in spectra_figures.plot_spectra(spectra).axes[0].lines
    ]
    assert darkness == sorted(darkness)  # the later, the brighter
    with pytest.raises(ValueError, match="at least one step"):
        spectra_figures.compute_spectra(net(), F.cross_entropy, (x, y), {})
