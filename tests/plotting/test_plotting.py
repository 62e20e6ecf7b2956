"""How pictures look: what the palette promises, series that differ, one style for all, pictures of sweeps."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import nqm
from nqm import plotting

# Machado, Oliveira & Fernandes (2009), severity 1: matrices on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
PROBLEM = nqm.NoisyQuadratic([1.0, 0.1])


def lab(colour, sight="normal"):
    """CIE 1976 L*, a*, b* of a colour (sRGB, D65) as such eyes see it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    white = TO_XYZ @ np.ones(3)
    ratio = TO_XYZ @ np.clip(np.array(SIGHTS[sight]) @ linear, 0.0, 1.0) / white
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_lab_is_right():
    """Known values: white, red, mid-grey."""
    assert lab("white") == pytest.approx([100.0, 0.0, 0.0], abs=1e-9)
    assert lab("red") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert lab("#777777") == pytest.approx([50.03, 0.0, 0.0], abs=0.01)
    green, red = (lab(colour, "deuteranopia") for colour in ("#1f8a70", "#a3195b"))
    assert np.linalg.norm(green - red) < 10.0  # a pair that deuteranopes take for one


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart(sight):
    """Black too, which stands beside them in some pictures."""
    for one, other in itertools.combinations((*plotting.COLORS, "black"), 2):
        assert np.linalg.norm(lab(one, sight) - lab(other, sight)) >= 20.0, (one, other)


def test_colours_are_told_apart_in_grey_and_from_the_paper():
    lightness = np.sort([lab(colour)[0] for colour in (*plotting.COLORS, "black")])
    assert np.diff(lightness).min() >= 9.0
    assert lightness.max() < 75.0


@pytest.mark.parametrize("sight", SIGHTS)
def test_sequential_colours_grow_lighter(sight):
    lightness = [lab(colour, sight)[0] for colour in plotting.sequential(5)]
    assert np.diff(lightness).min() >= 9.0
    assert lightness[-1] < 80.0
    assert len(set(plotting.sequential(19))) == 19
    assert len(plotting.sequential(1)) == 1


def test_series_differ_in_more_than_colour():
    for one, other in itertools.combinations(map(plotting.series, range(12)), 2):
        assert sum(one[key] != other[key] for key in one) >= 2


def test_a_new_figure_has_the_style_and_leaves_the_callers():
    before = dict(mpl.rcParams)
    _, axes = plotting.new_figure(2, rows=2, sharex=True)
    assert dict(mpl.rcParams) == before
    assert axes.shape == (2, 2)
    for ax in axes.flat:
        assert not ax.spines["top"].get_visible()
        assert ax.get_axisbelow() is True
        assert ax.xaxis.get_gridlines()[0].get_visible()
    assert axes[0, 0].get_shared_x_axes().joined(axes[0, 0], axes[1, 1])


def looks(ax):
    return [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in ax.get_lines()]


def test_two_sweeps_on_one_axes_and_many_optimizers_differ():
    ax = plotting.new_figure()[1]
    rates = {f"lr {lr:g}": nqm.SGD(lr) for lr in np.linspace(0.1, 0.7, 7)}
    nqm.sweep(PROBLEM, rates, [1, 16], 0.3).plot(ax)
    nqm.sweep(PROBLEM, {"momentum": nqm.SGD(0.1, 0.5)}, [1, 16], 0.3).plot(ax)
    nqm.sweep(PROBLEM, {"averaged": nqm.EMA(nqm.SGD(0.1), 0.5)}, [1, 16], [0.4, 0.35, 0.3]).plot(ax)
    assert len(looks(ax)) == len(set(looks(ax))) == 11
    assert ax.get_legend().get_texts()[0].get_text() == "lr 0.1, target 0.3"  # which target is said
    assert ax.get_legend().handlelength == 3.0


def test_plain_columns_are_drawn_as_the_result_is():
    result = nqm.sweep(PROBLEM, {"one": nqm.SGD(0.1), "two": nqm.SGD(0.2)}, [1, 16], [0.3, 0.4])
    table = {name: np.array(result.table[name]) for name in ("optimizer", "target", "batch_size", "steps")}
    lines = [
        [
            (*look, line.get_label(), line.get_xydata().tolist())
            for look, line in zip(looks(ax), ax.get_lines(), strict=True)
        ]
        for ax in (result.plot(), plotting.plot_sweep(result), plotting.plot_sweep(table))
    ]
    assert lines[0] == lines[1] == lines[2]
    assert len(lines[0]) == 4


def test_targets_of_one_optimizer_share_its_colour():
    ax = nqm.sweep(PROBLEM, {"one": nqm.SGD(0.1), "two": nqm.SGD(0.2)}, [1, 16], np.linspace(0.2, 0.4, 6)).plot(
        plotting.new_figure()[1]
    )
    colours, lines, markers = zip(*looks(ax), strict=True)
    assert len(set(colours[:6])) == len(set(colours[6:])) == 1
    assert len(set(zip(lines, markers, strict=True))) == 6
    assert len(set(looks(ax))) == 12


def test_two_schedules_on_one_axes_differ():
    ax = plotting.new_figure()[1]
    for lr in (0.1, 0.2):
        plotting.plot_schedule(nqm.schedules.cosine(lr, 10), ax)
    first, second = ax.patches
    assert first.get_edgecolor() != second.get_edgecolor()
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_zorder() > ax.xaxis.get_zorder()  # the grid is below


@pytest.mark.parametrize("ends", [(2.0, 1.0), (3.7, 4.6), (0.05, 2.0), (1e-6, 1.0)])
def test_logarithmic_axes_have_a_few_plain_numbers(ends):
    figure, ax = plotting.new_figure()
    ax.plot([0, 1], ends)
    plotting.logarithmic(ax, "y")
    figure.canvas.draw()
    low, high = ax.get_ylim()
    shown = [text.get_text() for text in ax.get_yticklabels() if low <= text.get_position()[1] <= high]
    assert 3 <= len(shown) <= 20
    assert [float(text) for text in shown] == pytest.approx([tick for tick in ax.get_yticks() if low <= tick <= high])
    assert not any("10^" in text for text in shown)
