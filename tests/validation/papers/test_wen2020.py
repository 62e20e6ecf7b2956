"""wen2020's figures on networks: what they compute, draw and judge, of results that are made up."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from drawn import Curve, Panel, require_drawn, require_swaps_noticed
from wen2020_results import DIGITS, PLACES, end, results

from nqm._table import Table
from nqm.papers.network_figures import WEN2020
from nqm.validation.experiments.paper import Effort, Result, write_paper
from nqm.validation.experiments.verdict import CANNOT, FAILS, HOLDS, UNDECIDED
from nqm.validation.papers import PAPERS
from nqm.validation.papers.wen2020 import costs, fisher_norms, generalization, sharpness, speed, variance

PAPER = PAPERS["wen2020"]
FIGURES = {figure.name: figure for figure in PAPER.figures}
MNIST, QUICK = Effort(False, 0, "mnist"), Effort(True, 0, "digits")


def verdicts(figure, **options):
    """Of each claim on the MLP, in order."""
    found = figure.judge(figure.compute(results(figure, **options)))
    return [verdict.verdict for verdict in found if verdict.claim.startswith("MLP-32")]


def naive(found, net, column, regime=None, row=None, **settings):
    """Mean and standard error over the seeds of a column, of one network's jobs with these settings."""
    own = [one for one in found if one.settings["net"] == net and regime in (None, one.settings.get("regime"))]
    own = [one for one in own if all(one.settings.get(name) == value for name, value in settings.items())]
    values = np.array([one.columns[column] if row is None else one.columns[column][row] for one in own])
    return values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(len(own))


def around(mean, error):
    return mean - error, mean + error


def test_the_listing_is_of_the_figures_and_says_what_they_cost():
    assert list(FIGURES) == list(WEN2020)
    assert all(0.0 < one.quick < one.full for one in WEN2020.values())


@pytest.mark.parametrize("figure", PAPER.figures, ids=lambda figure: figure.name)
def test_claims_hold_on_results_that_are_as_the_paper_says(figure):
    found = figure.judge(figure.compute(results(figure)))
    assert {verdict.verdict for verdict in found} == {HOLDS}
    assert len({(verdict.claim, verdict.why) for verdict in found}) == len(found)
    assert not any("|" in text for verdict in found for text in (verdict.claim, verdict.why, verdict.model))


@pytest.mark.parametrize("figure", PAPER.figures, ids=lambda figure: figure.name)
def test_quick_versions_can_be_drawn_and_judged(figure):
    table = figure.compute(results(figure, QUICK))
    figure.plot(table).canvas.draw()
    assert figure.judge(table)
    assert len(figure.jobs(QUICK)) < len(figure.jobs(DIGITS))


def test_other_data_has_table_2_alone():
    assert [name for name, figure in FIGURES.items() if figure.jobs(MNIST)] == ["wen2020-table2"]
    table = generalization.compute(results(FIGURES["wen2020-table2"], MNIST))
    assert len(generalization.judge(table)) == 12
    axes = generalization.plot(table).axes
    crosses = [[line.get_ydata()[0] for line in ax.lines if line.get_marker() == "x"] for ax in axes]
    assert crosses == [[98.10, 97.95, 98.10, 98.08], [99.10, 98.88, 99.11, 99.02]]
    assert not FIGURES["wen2020-table2"].jobs(Effort(False, 0, "cifar10"))


def test_seeds_are_those_of_the_effort_and_none_of_the_pilots():
    for figure in PAPER.figures:
        for effort, first in ((DIGITS, 100), (Effort(False, 2, "digits"), 2100)):
            assert min(one["seed"] for one in figure.jobs(effort)) == first


def test_runs_are_shared_between_figures():
    of_table = FIGURES["wen2020-table2"].jobs(DIGITS)
    assert all(one in of_table for one in FIGURES["wen2020-5b"].jobs(DIGITS))
    assert all(of_table.count(one) == 1 for one in of_table)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_figure_3_draws_each_regime_of_each_network():
    found = results(FIGURES["wen2020-3"])
    picture, panels = speed.plot(speed.compute(found)), []
    for column in ("training error", "training loss"):
        for net, title in (("mlp", "MLP-32"), ("cnn", "CNN-6"), ("resnet8", "ResNet8")):
            lines = []
            for regime in PLACES:
                if net == "resnet8" and regime in speed.COSTLY:
                    continue
                mean, error = naive(found, net, column, regime)
                lines.append(Curve(5.0 * np.arange(81), mean, regime, around(mean, error)))
            panels.append(Panel((title, "update", column), lines))
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def test_figure_2_draws_exact_and_sampled_variances():
    found = results(FIGURES["wen2020-2"])
    picture, panels = variance.plot(variance.compute(found)), []
    for net, title in (("mlp", "MLP-32"), ("cnn", "CNN-6"), ("resnet8", "ResNet8")):
        lines = []
        for number, regime in enumerate(variance.SHOWN):
            rows = np.flatnonzero(found_of(found, net)["regime"] == regime)
            x = 1.0 + np.arange(len(rows)) + 0.14 * (number - 2)
            exact, _ = naive(found, net, "exact", row=rows)
            sampled, error = naive(found, net, "sampled", row=rows)
            lines += [Curve(x, exact, f"{regime}, exact"), Curve(x, sampled, None, around(sampled, error))]
        panels.append(Panel((title, "layer", "variance"), lines))
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def found_of(found, net):
    return next(one.columns for one in found if one.settings["net"] == net)


def test_figure_5a_draws_norms_above_and_traces_below():
    found = results(FIGURES["wen2020-5a"])
    picture, panels = fisher_norms.plot(fisher_norms.compute(found)), []
    for names, ylabel in ((fisher_norms.NORMS, "norm"), (fisher_norms.TRACES, "added to the loss")):
        for net, title in (("mlp", "MLP-32"), ("cnn", "CNN-6"), ("resnet8", "ResNet8")):
            lines = []
            for name in names.values():
                mean, error = naive(found, net, name)
                lines.append(Curve(np.array(fisher_norms.AT, dtype=float), mean, None, around(mean, error)))
            panels.append(Panel((title, "update", ylabel), lines))
    require_drawn(panels, picture)
    require_swaps_noticed(panels, picture)


def test_figure_5b_draws_both_eigenvalues_of_each_regime():
    found = results(FIGURES["wen2020-5b"])
    columns = ("largest Hessian eigenvalue, tempered", "largest Hessian eigenvalue")
    for ax, column in zip(sharpness.plot(sharpness.compute(found)).axes, columns, strict=True):
        assert ax.get_title() == ("as trained" if column == columns[1] else "outputs at their temperature")
        drawn = {one.get_label(): one.lines[0].get_ydata() for one in ax.containers}
        for regime in ("LB", "LB + diagonal", "SB"):
            wanted = [naive(found, net, column, regime, row=-1)[0] for net in ("mlp", "cnn")]
            assert np.allclose(drawn[regime], wanted, rtol=1e-12)


def test_table_2_draws_the_splits_their_means_and_other_strengths():
    found = results(FIGURES["wen2020-table2"])
    picture = generalization.plot(generalization.compute(found))
    for ax, net in zip(picture.axes[:2], ("mlp", "cnn"), strict=True):
        for place, (regime, lr) in enumerate(generalization.RATES[net].items()):
            own = [one for one in found if (one.settings["net"], one.settings["regime"]) == (net, regime)]
            own = [one for one in own if (one.settings["lr"], one.settings["small"]) == (lr, 8)]
            single = [100.0 * one.columns["held-out accuracy"][-1] for one in own]
            lines = [line for line in ax.lines if line.get_label() == f"_{regime}, splits"]
            assert np.allclose(lines[0].get_ydata(), single, rtol=1e-12)
            mean = next(line for line in ax.lines if len(line.get_ydata()) == 1 and line.get_xdata()[0] == place)
            assert mean.get_ydata()[0] == pytest.approx(np.mean(single))
        assert [text.get_text().replace("\n", " ") for text in ax.get_xticklabels()] == list(generalization.RATES[net])
    for ax, net in zip(picture.axes[2:], ("mlp", "cnn"), strict=True):
        rate = generalization.RATES[net]["LB + diagonal"]
        wanted = [naive(found, net, "held-out accuracy", "LB", row=-1, lr=rate)[0]]
        wanted += [naive(found, net, "held-out accuracy", "LB + diagonal", row=-1, small=small)[0]
                   for small in (128, 64, 32, 16, 8)]  # fmt: skip
        assert np.allclose(ax.lines[0].get_ydata(), 100.0 * np.array(wanted), rtol=1e-12)
        assert np.allclose(ax.lines[0].get_xdata()[[0, 3, 5]], [0.0, math.sqrt((1 / 32 - 1 / 256) / (31 / 256)), 1.0])


def test_costs_are_drawn_over_those_of_large_batches():
    found = results(FIGURES["wen2020-costs"])
    for ax, net in zip(costs.plot(costs.compute(found)).axes, ("mlp", "cnn", "resnet8"), strict=True):
        tables = [one.columns["seconds"] for one in found if one.settings["net"] == net]
        wanted = np.mean([seconds[1:] / seconds[2] for seconds in tables], axis=0)
        drawn = [one.lines[0].get_ydata()[0] for one in ax.containers]
        assert np.allclose(drawn, wanted, rtol=1e-12)
        assert [text.get_text() for text in ax.get_xticklabels()] == list(PLACES)


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({"LB + diagonal": 0.95}, [FAILS, HOLDS, FAILS, FAILS, HOLDS, HOLDS]),
        ({"LB + full": 0.1}, [FAILS, FAILS, HOLDS, FAILS, HOLDS, FAILS]),
        ({"LB + full": 1.6}, [HOLDS, FAILS, HOLDS, HOLDS, HOLDS, FAILS]),
        ({"LB + trace": 0.8}, [HOLDS, HOLDS, HOLDS, HOLDS, FAILS, HOLDS]),
        ({"LB + true full": 1.5}, [HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
        ({"SB": 0.0}, [HOLDS, CANNOT, CANNOT, CANNOT, CANNOT, CANNOT]),
        ({"LB + full": math.nan}, [UNDECIDED, UNDECIDED, HOLDS, UNDECIDED, HOLDS, UNDECIDED]),
        ({"LB": math.nan}, [HOLDS, CANNOT, CANNOT, CANNOT, CANNOT, CANNOT]),
    ],
)
def test_speed_is_judged_by_the_place_between_lb_and_sb(places, expected):
    assert verdicts(FIGURES["wen2020-3"], change=moved_to({**PLACES, **places})) == expected


def moved_to(places):
    """Curves with the regimes at other places; NaN: one seed's run has diverged."""

    def change(settings, columns):
        if settings["kind"] != "curve":
            return columns
        place, loss = places[settings["regime"]], columns["training loss"]
        if math.isnan(place):
            gone = (np.arange(81) == 40) & (settings["seed"] == 100)
            return {**columns, "training loss": np.where(gone, math.nan, loss)}
        return {**columns, "training loss": loss * np.exp(0.3 * (place - PLACES[settings["regime"]]))}

    return change


def test_the_quadratic_is_the_networks_own_or_that_of_softmax_regression():
    found = FIGURES["wen2020-3"].judge(speed.compute(results(FIGURES["wen2020-3"])))
    said = [verdict.model for verdict in found if "diagonal trains like LB" in verdict.claim]
    assert said == ["0.10", "0.10", "0.10 (softmax regression)"]


def test_pseudo_values_have_the_ratio_as_mean_and_its_error():
    draw = np.random.default_rng(0)
    under = draw.normal(2.0, 0.5, 4000)
    over = 0.3 * under + draw.normal(0.0, 0.1, 4000)
    found = speed.pseudo_values(over, under)
    assert found.mean() == pytest.approx(over.sum() / under.sum(), rel=1e-3)
    assert found.std() == pytest.approx(0.1 / 2.0, rel=0.05)  # to first order: of (over - ratio under) / mean(under)


@pytest.mark.parametrize(
    ("regime", "factor", "expected"),
    [
        ("LB + full", 3.0, [FAILS, FAILS, HOLDS]),
        ("LB + diagonal", 0.25, [FAILS, FAILS, HOLDS]),
        ("LB", 16.0, [HOLDS, HOLDS, FAILS]),
        ("LB + trace", 9.0, [HOLDS, HOLDS, HOLDS]),
    ],
)
def test_variances_are_judged_against_those_of_small_batches(regime, factor, expected):
    def change(settings, columns):
        return {**columns, "sampled": columns["sampled"] * np.where(columns["regime"] == regime, factor, 1.0)}

    assert verdicts(FIGURES["wen2020-2"], change=change) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"norm of F": 2.0}, [FAILS, HOLDS]),
        ({"Tr HF": 5.0}, [HOLDS, FAILS]),
        ({"Tr H diag F": -1.0}, [HOLDS, UNDECIDED]),
        ({"Tr H Tr F / P": 50.0}, [HOLDS, HOLDS]),
    ],
)
def test_norms_are_judged_apart_from_what_noise_adds(columns, expected):
    def change(settings, given):
        return {**given, **{name: np.full(len(given["step"]), value) for name, value in columns.items()}}

    assert verdicts(FIGURES["wen2020-5a"], change=change) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [("largest Hessian eigenvalue, tempered", [FAILS, HOLDS]), ("largest Hessian eigenvalue", [HOLDS, FAILS])],
)
def test_each_eigenvalue_has_its_verdict(column, expected):
    def change(settings, columns):
        return {**columns, column: columns[column] * (5.0 if settings["regime"] == "LB + diagonal" else 1.0)}

    assert verdicts(FIGURES["wen2020-5b"], change=change) == expected


@pytest.mark.parametrize(
    ("regimes", "expected"),
    [
        ({"SB": -2.5}, [FAILS, HOLDS, HOLDS, CANNOT, HOLDS, HOLDS, HOLDS]),
        ({"LB + trace": 2.0}, [HOLDS, HOLDS, FAILS, HOLDS, HOLDS, HOLDS, HOLDS]),
        ({"LB + full": -3.0}, [HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, CANNOT]),
        ({"LB + full": 2.0}, [HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
    ],
)
def test_accuracies_are_judged_in_pairs_of_splits(regimes, expected):
    def change(settings, columns):
        more = regimes.get(settings["regime"], 0.0)
        return {**columns, "held-out accuracy": columns["held-out accuracy"] + more / 100.0}

    first, as_far, by_eq_1, *others = verdicts(FIGURES["wen2020-table2"], change=change)
    assert (as_far, by_eq_1) == (HOLDS, HOLDS)
    assert [first, *others] == expected


@pytest.mark.parametrize(("times", "loss", "expected"), [(1.5, 0.0, [HOLDS, HOLDS]), (3.0, -0.05, [FAILS, FAILS])])
def test_large_batches_that_have_not_come_as_far_are_told(times, loss, expected):
    def change(settings, columns):
        if settings["regime"] != "LB":
            return columns
        trained = columns["training loss"] * times
        held = columns["held-out loss"] + trained - columns["training loss"] + loss
        return {**columns, "training loss": trained, "held-out loss": held}

    assert verdicts(FIGURES["wen2020-table2"], change=change)[1:3] == expected


def test_strengths_of_noise_are_judged_by_slopes():
    figure = FIGURES["wen2020-table2"]

    def change(settings, columns):
        noisy = settings["regime"] == "LB + diagonal" and settings["small"] == 8
        weaker = settings["regime"] == "LB + diagonal" or settings["lr"] == generalization.RATES["mlp"]["LB + diagonal"]
        lost = 5.0 if weaker and not noisy else 0.0  # 5 points, where it is not as strong as that
        held = columns["held-out loss"] - (0.1 if lost else 0.0)
        return {**columns, "held-out accuracy": columns["held-out accuracy"] + lost / 100.0, "held-out loss": held}

    assert verdicts(figure, change=change)[6:8] == [FAILS, FAILS]


def test_a_split_that_diverged_leaves_what_it_is_part_of_undecided():
    def change(settings, columns):
        if settings["regime"] == "LB + diagonal" and settings["seed"] == 103:
            last = np.arange(len(columns["step"])) == len(columns["step"]) - 1
            return {**columns, "diverged": last.astype(int), "training loss": np.where(last, math.nan, 1.0)}
        return columns

    figure = FIGURES["wen2020-table2"]
    assert verdicts(figure, change=change) == [HOLDS, HOLDS, HOLDS, *[UNDECIDED] * 5, CANNOT]
    assert verdicts(FIGURES["wen2020-5b"], change=change) == [UNDECIDED, UNDECIDED]


def test_accuracy_at_equal_loss_lies_on_each_runs_own_course():
    levels = {"LB": 0.2, "LB + full": 0.05, "LB + diagonal": 0.1}
    runs = []
    for regime, last in levels.items():
        loss = np.array([2.0, 1.0, last])
        settings = generalization.end_of(DIGITS, "mlp", regime, 100)
        columns = {**end(settings), "step": [0, 1, 2], "training loss": loss, "held-out loss": loss,
                   "held-out accuracy": 1.0 + 0.1 * np.log(loss)}  # fmt: skip
        columns = {name: np.asarray(column)[-3:] for name, column in columns.items()}
        runs.append(Result(settings, Table(columns)))
    table = generalization.compute(runs)
    found = table.select(quantity="held-out accuracy (%) at equal training loss", seed=100)
    assert dict(zip(found["series"].tolist(), found["value"].tolist(), strict=True)) == pytest.approx(
        dict.fromkeys(levels, 100.0 + 10.0 * math.log(0.2))
    )


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.0, [HOLDS, HOLDS]), (4.8, [FAILS, FAILS]), (3.1, [HOLDS, HOLDS]), (4.3, [HOLDS, HOLDS])],
)
def test_costs_are_judged_in_forward_passes_and_steps(seconds, expected):
    def change(settings, columns):
        own = columns["regime"].index("LB + diagonal")
        columns["seconds"][own] *= seconds / 4.0
        return columns

    assert verdicts(FIGURES["wen2020-costs"], change=change) == expected


# --- the whole way --------------------------------------------------------------------------------------------------


def test_a_paper_is_written_and_resumed_without_training(tmp_path):
    trained = []

    def run(kind, data_root=None, **settings):
        trained.append(settings["seed"])
        return PAPER.run(kind, data_root=data_root, **settings)

    def jobs(effort):
        return [{**one, "large": 64, "small": 8, "updates": 2, "draws": 3} for one in variance.jobs(QUICK)[:2]]

    own = replace(PAPER, run=run, figures=(replace(FIGURES["wen2020-2"], jobs=jobs),))
    for _ in range(2):
        report = write_paper(own, tmp_path, quick=True, progress=False)
    assert trained == [100, 101]
    assert {path.name for path in report.written} == {
        "README.md", "wen2020-2.csv", "wen2020-2.png", "wen2020-verdicts.csv",
    }  # fmt: skip
    text = (tmp_path / "README.md").read_text()
    assert WEN2020["wen2020-2"].title in text
    assert all(line.count("|") == text[text.index("| shown by") :].split("\n")[0].count("|")
               for line in text.split("\n") if line.startswith("| wen2020"))  # fmt: skip


@pytest.fixture
def small():
    """The paper with two figures of two small jobs each."""

    def jobs(effort, lr):
        return [
            {**one, "large": 64, "small": 8, "updates": 2, "draws": 3, "lr": lr} for one in variance.jobs(QUICK)[:2]
        ]

    one = replace(FIGURES["wen2020-2"], jobs=lambda effort: jobs(effort, 0.1))
    other = replace(one, name="wen2020-3", jobs=lambda effort: jobs(effort, 0.2))
    return replace(PAPER, figures=(one, other))


def test_a_report_keeps_the_figures_that_were_there(small, tmp_path):
    write_paper(small, tmp_path, figures=["wen2020-3"], quick=True, progress=False)
    report = write_paper(small, tmp_path, figures=["wen2020-2"], quick=True, progress=False)
    text = (tmp_path / "README.md").read_text()
    assert "## wen2020-2: " in text
    assert "## wen2020-3: " in text
    assert "*Jobs:* 2, of which 0 diverged." in text
    assert {"wen2020-2.png", "wen2020-3.png"} <= {path.name for path in report.written}


def test_another_report_is_not_written_over(small, tmp_path):
    write_paper(small, tmp_path, quick=True, progress=False)
    before = (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match=r"folder: expected one without a report of something else, .*quick version"):
        write_paper(small, tmp_path, progress=False)
    (tmp_path / "wen2020-quick.jsonl").unlink()
    with pytest.raises(ValueError, match=r"of figures wen2020-3; take another folder"):
        write_paper(small, tmp_path, figures=["wen2020-2"], quick=True, progress=False)
    assert (tmp_path / "README.md").read_text() == before


def test_results_of_other_data_are_refused(monkeypatch, tmp_path):
    known = replace(PAPER, run=lambda kind, data_root=None, **settings: end({"kind": kind, **settings}))
    for name, shift in (("a", 0), ("b", 1)):
        x = np.arange(40 * 784, dtype=np.float32).reshape(40, 28, 28)
        np.savez(tmp_path / f"{name}.npz", x=x + shift, y=(np.arange(40) + shift) % 10)
    options = {"quick": True, "data": "mnist", "progress": False}
    write_paper(known, tmp_path / "out", data_root=tmp_path / "a.npz", **options)
    with pytest.raises(ValueError, match="examples"):
        write_paper(known, tmp_path / "out", data_root=tmp_path / "b.npz", **options)
