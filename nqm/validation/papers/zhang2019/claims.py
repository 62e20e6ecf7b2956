"""What zhang2019 says of its experiments, judged on measured steps to target; the number behind each verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ...._statistics import critical_batch_size
from ...._table import Table
from ...experiments.verdict import LEVEL, decide
from ...measurement.prediction import Predicted
from ...search.summary import Measured

__all__ = ["CLAIMS", "Claim", "Estimate", "judge"]

CHANCE = 1.0 - LEVEL  # of an interval that misses the number, seeds being the only source of error
MATTERS = 1.25  # ratio of steps that counts as a difference
APART = 1.5  # ratio of learning rates that counts as parted


class Estimate(NamedTuple):
    """A positive number and the half width of its logarithm's 95% interval: 0 for the model's own numbers and for those
    of a single best learning rate, NaN where nothing is known."""

    value: float
    error: float


@dataclass(frozen=True)
class Claim:
    """text: what is claimed. number: what is computed. above: whether it has to lie above the bound. slope: the number
    is the logarithm of what ``find`` gives."""

    text: str
    number: str
    needs: tuple[str, ...]
    find: Callable[[_Steps], Estimate]
    above: bool
    bound: float
    slope: bool = False


class _Steps:
    """Steps and rates of each optimizer by batch size, measured (medians of confirmation runs) or predicted."""

    def __init__(self, table: Measured | Predicted, metric: str | None = None) -> None:
        self.names = table.names
        self.rows: dict[str, Table] = {}
        for name in table.names:
            rows = table.rows(name) if isinstance(table, Predicted) else table.rows(name, metric)
            measured = isinstance(table, Measured)
            steps = rows["median"] if measured else np.maximum(rows["steps"], 1.0)
            error = rows["error"] * _quantile(rows["finals"]) if measured else np.zeros_like(steps)
            kept = np.isfinite(steps) & np.isfinite(error)
            columns = {"size": rows["batch_size"], "steps": steps, "error": error, "rate": rows["effective_lr"]}
            floats = {key: np.asarray(column, dtype=float) for key, column in columns.items()}
            self.rows[name] = Table(floats).where(kept)

    def steps(self, name: str, size: float) -> Estimate:
        rows = self.rows[name]
        (place,) = np.flatnonzero(rows["size"] == size)
        return Estimate(float(rows["steps"][place]), float(rows["error"][place]))

    def common(self, *names: str) -> list[float]:
        """Batch sizes at which all of them have steps, rising."""
        return sorted(set.intersection(*({*self.rows[name]["size"].tolist()} for name in names)))

    def critical(self, name: str, *others: str) -> Estimate:
        """E_min / S_min, over batch sizes at which the others have steps too; its error from those of the two cells
        that give it. One cell that gives both, since steps still halve at the largest batch size, makes it a lower
        bound, of unknown error."""
        rows = self.rows[name].where(np.isin(self.rows[name]["size"], self.common(name, *others)))
        cheap, short = int(np.argmin(rows["size"] * rows["steps"])), int(np.argmin(rows["steps"]))
        error = math.hypot(rows["error"][cheap], rows["error"][short]) if cheap != short else math.nan
        return Estimate(critical_batch_size(rows["size"], rows["steps"]), error)

    def saving(self, slow: str, quick: str, sizes: list[float]) -> Estimate:
        """Steps of the one over steps of the other, geometric mean over these batch sizes."""
        pairs = [(self.steps(slow, size), self.steps(quick, size)) for size in sizes]
        logs = [math.log(a.value / b.value) for a, b in pairs]
        squares = [a.error**2 + b.error**2 for a, b in pairs]
        return Estimate(math.exp(float(np.mean(logs))), math.sqrt(sum(squares)) / len(pairs))

    def below_critical(self, *names: str) -> list[float]:
        """The common batch sizes up to half plain SGD's critical one, or else the smallest."""
        sizes, limit = self.common("SGD", *names), 0.5 * self.critical("SGD").value
        return [size for size in sizes if size <= limit] or sizes[:1]

    def slope(self, name: str, below: bool) -> Estimate:
        """d log(effective learning rate) / d log(batch size) over batch sizes up to half the optimizer's critical one,
        or from twice that on, or over the three smallest or largest where those are fewer; as exp(slope), so that it is
        positive like the rest."""
        rows, limit = self.rows[name], self.critical(name).value
        here = rows["size"] <= 0.5 * limit if below else rows["size"] >= 2.0 * limit
        if here.sum() < 3:
            place = np.arange(here.size)
            here = place < 3 if below else place >= here.size - 3
        x, y = np.log(rows["size"][here]), np.log(rows["rate"][here])
        if x.size < 3:
            return Estimate(math.nan, math.nan)
        slope, height = np.polyfit(x, y, 1)
        rest = y - slope * x - height
        spread = math.sqrt(float(rest @ rest) / (x.size - 2) / float(((x - x.mean()) ** 2).sum()))
        return Estimate(math.exp(float(slope)), spread * float(student.ppf(1.0 - 0.5 * CHANCE, x.size - 2)))

    def parting(self) -> Estimate:
        """Batch sizes at which SGD's and momentum's best rates part, and their steps: the larger over the smaller;
        infinite where only one of them ever does, NaN where neither."""
        sizes = self.common("SGD", "momentum")
        rate = {name: dict(zip(self.rows[name]["size"], self.rows[name]["rate"], strict=True)) for name in self.names}
        rates = [rate["momentum"][size] / rate["SGD"][size] for size in sizes]
        steps = [self.steps("SGD", size).value / self.steps("momentum", size).value for size in sizes]
        first, second = _crossing(sizes, rates, APART), _crossing(sizes, steps, MATTERS)
        if math.isnan(first) != math.isnan(second):
            return Estimate(math.inf, 0.0)
        return Estimate(max(first / second, second / first), 0.0)

    def rates_apart(self) -> Estimate:
        """Best effective rate of momentum over that of SGD at the largest batch size of both."""
        last = self.common("SGD", "momentum")[-1]
        rates = [float(self.rows[name]["rate"][self.rows[name]["size"] == last][0]) for name in ("momentum", "SGD")]
        return Estimate(rates[0] / rates[1], 0.0)


def _quantile(runs: NDArray[Any]) -> NDArray[Any]:
    """Standard errors to either side of a 95% interval, for medians over so many seeds."""
    return np.asarray(student.ppf(1.0 - 0.5 * CHANCE, np.maximum(runs - 1, 1)))


def _crossing(sizes: list[float], ratios: list[float], level: float) -> float:
    """The smallest batch size from which on the ratio stays above the level; NaN if it does not at the largest."""
    last = math.nan
    for size, ratio in zip(reversed(sizes), reversed(ratios), strict=True):
        if ratio <= level:
            break
        last = size
    return last


def _largest(steps: _Steps, *names: str) -> list[float]:
    return steps.common(*names)[-1:]


def _smallest(steps: _Steps, *names: str) -> list[float]:
    return steps.common(*names)[:2]


def _over(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value / b.value, math.hypot(a.error, b.error))


def _critical_ratio(a: str, b: str) -> Callable[[_Steps], Estimate]:
    return lambda steps: _over(steps.critical(a, b), steps.critical(b, a))


def _at_smallest(quick: str) -> Callable[[_Steps], Estimate]:
    return lambda steps: steps.saving("SGD", quick, _smallest(steps, "SGD", quick))


def _shrinking(plain: str, heavy: str) -> Callable[[_Steps], Estimate]:
    def find(steps: _Steps) -> Estimate:
        sizes = _largest(steps, "SGD", "momentum", plain, heavy)
        return _over(steps.saving("SGD", "momentum", sizes), steps.saving(plain, heavy, sizes))

    return find


MOMENTUM, EMA_ = ("SGD", "momentum"), ("SGD", "SGD with EMA")
ADAM, KFAC = ("Adam without momentum", "Adam"), ("K-FAC", "K-FAC with momentum")

CLAIMS = (
    Claim("Below plain SGD's critical batch size momentum saves no steps (section 4.1)",
          "steps of SGD / momentum, mean over batch sizes up to half the critical one", MOMENTUM,
          lambda steps: steps.saving(*MOMENTUM, steps.below_critical("momentum")), False, MATTERS),
    Claim("Beyond it momentum does (4.1)", "steps of SGD / momentum at the largest batch size", MOMENTUM,
          lambda steps: steps.saving(*MOMENTUM, _largest(steps, *MOMENTUM)), True, MATTERS),
    Claim("Momentum raises the critical batch size (4.1)", "critical batch size of momentum / SGD", MOMENTUM,
          _critical_ratio("momentum", "SGD"), True, 1.0),
    Claim("Preconditioning raises it further: Adam (4.1)", "critical batch size of Adam / momentum",
          ("momentum", "Adam"), _critical_ratio("Adam", "momentum"), True, 1.0),
    Claim("Preconditioning raises it further: K-FAC (4.1)", "critical batch size of K-FAC with momentum / momentum",
          ("momentum", KFAC[1]), _critical_ratio(KFAC[1], "momentum"), True, 1.0),
    Claim("Preconditioning helps at small batches: Adam (4.1)",
          "steps of SGD / Adam without momentum at the two smallest batch sizes", ("SGD", ADAM[0]),
          _at_smallest(ADAM[0]), True, 1.0),
    Claim("Preconditioning helps at small batches: K-FAC (4.1)",
          "steps of SGD / K-FAC at the two smallest batch sizes, examples of K-FAC's factors not counted",
          ("SGD", KFAC[0]), _at_smallest(KFAC[0]), True, 1.0),
    Claim("Momentum's benefit shrinks with preconditioning: Adam (4.1)",
          "(SGD / momentum) / (Adam without / with momentum), steps at the largest batch size", (*MOMENTUM, *ADAM),
          _shrinking(*ADAM), True, 1.0),
    Claim("Momentum's benefit shrinks with preconditioning: K-FAC (4.1)",
          "(SGD / momentum) / (K-FAC without / with momentum), steps at the largest batch size", (*MOMENTUM, *KFAC),
          _shrinking(*KFAC), True, 1.0),
    Claim("EMA saves steps at small batches (4.2)", "steps of SGD / SGD with EMA at the two smallest batch sizes", EMA_,
          _at_smallest("SGD with EMA"), True, 1.0),
    Claim("EMA lowers the critical batch size (4.2)", "critical batch size of SGD with EMA / SGD", EMA_,
          _critical_ratio("SGD with EMA", "SGD"), False, 1.0),
    Claim("The best learning rate of SGD grows linearly with the batch size at first (4.3)",
          "slope of log rate against log batch size up to half the critical one, or of the three smallest (linear: 1)",
          ("SGD",), lambda steps: steps.slope("SGD", True), True, 0.75, True),
    Claim("Then it levels off (4.3)",
          "the same slope from twice the critical one on, or of the three largest (level: 0)", ("SGD",),
          lambda steps: steps.slope("SGD", False), False, 0.25, True),
    Claim("Momentum's effective learning rate goes on growing (4.3)",
          "best effective rate of momentum / SGD at the largest batch size", MOMENTUM,
          lambda steps: steps.rates_apart(), True, APART),
    Claim("Their rates part where their steps do (4.3)",
          "batch sizes where the rates part (1.5 times) and the steps do (1.25 times), larger / smaller; at most 2",
          MOMENTUM, lambda steps: steps.parting(), False, 2.001),
)  # fmt: skip


def judge(networks: Mapping[str, tuple[Measured, Predicted | None]]) -> Table:
    """Claims of zhang2019 section 4, judged: claim, number, metric, net, value, low, high, bound, verdict, model.

    metric: the target whose steps are judged, each that all networks have. The paper's section 4.1 is about validation
    targets, which are the held-out ones here; hyperparameters were chosen by the first metric. value: the number that
    decides, from the medians of each cell's confirmation runs; low, high: a 95% interval from the spread over the seeds
    (Student's t), which knows nothing of what the search may have missed. verdict: "holds" where the whole interval
    lies on the claim's side of the bound, "does not hold" where it lies on the other, else "undecided". model: the same
    number from the predicted steps, where there are any: they are those to the first metric. Claims about optimizers
    that were not trained are left out.

    networks: for each network its measured table, and the predicted one or None.
    """
    tables = [measured for measured, _ in networks.values()]
    metrics = [m for m in tables[0].metrics if all(m in table.metrics for table in tables)] if tables else []
    records = []
    for claim in CLAIMS:
        for metric in metrics:
            for net, (measured, predicted) in networks.items():
                if set(claim.needs) <= set(measured.names):
                    model = _model(claim, predicted) if metric == measured.metrics[0] else math.nan
                    records.append({"claim": claim.text, "number": claim.number, "metric": metric, "net": net,
                                    **_judged(claim, measured, metric), "model": model})  # fmt: skip
    names = ("claim", "number", "metric", "net", "value", "low", "high", "bound", "verdict", "model")
    return Table.from_rows(records, names)


def _judged(claim: Claim, measured: Measured, metric: str) -> dict[str, Any]:
    value, error = _found(claim, measured, metric)
    low, high = value * math.exp(-error), value * math.exp(error)
    if claim.slope:
        value, low, high = math.log(value), math.log(low), math.log(high)
    verdict = decide(low, high, claim.bound, claim.above)
    return {"value": value, "low": low, "high": high, "bound": claim.bound, "verdict": verdict}


def _model(claim: Claim, predicted: Predicted | None) -> float:
    if predicted is None or not set(claim.needs) <= set(predicted.names):
        return math.nan
    value = _found(claim, predicted).value
    return math.log(value) if claim.slope else value


def _found(claim: Claim, table: Measured | Predicted, metric: str | None = None) -> Estimate:
    """The claim's number; NaN where steps are missing."""
    steps = _Steps(table, metric)
    if any(steps.rows[name]["size"].size == 0 for name in claim.needs) or not steps.common(*claim.needs):
        return Estimate(math.nan, math.nan)
    return claim.find(steps)
