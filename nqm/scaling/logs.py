"""Reading training logs: final losses of many runs, or loss curves, from CSV files as they come.

Columns are known by their names, in any order and spelling: "Batch Size", "batch_size" and "BATCH-SIZE (sequences)" are
one. What else a file holds is let be. Rows that cannot be used are left out, and said with their line and why.

The CSV may be separated by commas, semicolons or tabs (the one that the header has most of), have a byte order mark,
quotes, blank lines, and lines that start with # as comments. Numbers are as Python writes them (1e9, 1_000).
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._checks import FloatArray, IntArray

if TYPE_CHECKING:
    from .curves import LossCurve

NAMES: Final = {
    "N": ("n", "params", "parameters", "num_params", "n_params", "num_parameters", "n_parameters", "param_count",
          "parameter_count", "model_size", "model_params", "total_params", "non_embedding_params",
          "non_embedding_parameters", "nonemb_params"),
    "B": ("b", "batch", "batch_size", "global_batch_size", "global_batch", "train_batch_size", "bs"),
    "K": ("k", "step", "steps", "train_steps", "training_steps", "num_steps", "n_steps", "total_steps", "max_steps",
          "iterations", "iters", "num_iterations", "updates", "train_iters"),
    "loss": ("loss", "final_loss", "val_loss", "valid_loss", "validation_loss", "test_loss", "eval_loss",
             "final_val_loss", "final_validation_loss", "final_test_loss", "final_eval_loss", "nll"),
    "examples": ("examples", "num_examples", "train_examples", "total_examples", "sequences", "num_sequences",
                 "samples", "num_samples", "train_samples"),
    "tokens": ("tokens", "num_tokens", "n_tokens", "train_tokens", "training_tokens", "total_tokens"),
    "type": ("type", "kind"),
    "split": ("split",),
    "exclude": ("exclude", "excluded", "filtered"),
    "compute": ("c", "compute", "flop", "flops", "gflops"),
    "step": ("step", "steps", "k", "iteration", "iterations", "iter", "global_step", "train_step", "training_step"),
    "lr": ("lr", "learning_rate", "learningrate", "eta"),
    "batch_size": ("b", "batch", "batch_size", "global_batch_size", "global_batch", "train_batch_size", "bs"),
}  # fmt: skip
"""Names of columns that are known for each quantity; capitals and punctuation do not count."""

MEANINGS: Final = {
    "N": "parameters", "B": "batch size in examples", "K": "steps", "loss": "loss in nats", "step": "step",
    "lr": "learning rate",
}  # fmt: skip
YES, NO = ("true", "yes", "t", "y", "1", "1.0"), ("false", "no", "f", "n", "0", "0.0", "")
POWERS: Final = {"k": "e3", "m": "e6", "b": "e9", "t": "e12"}
SHOWN: Final = 3  # reasons in an error
MOST_STEPS: Final = 10**8  # of a curve, whose learning rates take 8 bytes a step

TRUTH: Final = {"p": 1.12, "q": 0.55, "P": 3.2, "Q": 1.2, "R": 120.0, "T0": 100.0, "E": 0.4}
"""Parameters that the example was made from, those of :class:`nqm.scaling.RunsFit`."""
WARMUP: Final = 0.01  # share of the steps, of the example's runs; a cosine follows
SPREAD: Final = 0.005  # standard deviation of the example's log losses about the model's
FAILED: Final = 1.15  # factor on the loss of the run that went wrong
LENGTH: Final = 128  # tokens in an example

Skipped = tuple[tuple[int, str], ...]


@dataclass(frozen=True, eq=False)
class RunsLog:
    """Final losses of runs, as :func:`read_runs` found them; all arrays have one entry a usable row, and are read-only.

    N: parameters. B: batch size, in examples. K: steps. loss: nats. (All float64, > 0.) exclude: bool, what a column
    such as "filtered" says, else False. type, split: strings, or None without such a column. compute: as the file has
    it, in its own unit, NaN where it is not a number, or None. line: where in the file. skipped: (line, reason) of each
    row that cannot be used.

    >>> log = example_runs()
    >>> log
    RunsLog(66 runs of 'example_runs.csv': N 500000 to 2.56e+08, B 8 to 16384, K 256 to 162760, loss 2.6929 to 4.3776)
    >>> log.loss[log.type == "isotoken"].size
    36
    """

    N: FloatArray
    B: FloatArray
    K: FloatArray
    loss: FloatArray
    exclude: NDArray[np.bool_]
    type: NDArray[np.str_] | None
    split: NDArray[np.str_] | None
    compute: FloatArray | None
    line: IntArray
    skipped: Skipped
    path: str

    def __len__(self) -> int:
        return self.loss.size

    def __repr__(self) -> str:
        ranges = ", ".join(f"{name} {_range(getattr(self, name))}" for name in ("N", "B", "K", "loss"))
        skipped = f"; {_count(len(self.skipped), 'row')} skipped" if self.skipped else ""
        return f"RunsLog({_count(len(self), 'run')} of {Path(self.path).name!r}: {ranges}{skipped})"


class CurvesLog(dict[str, "LossCurve"]):
    """Loss curves by name, as :func:`read_curves` found them: a dict.

    skipped: (file name, line, reason) of each row that cannot be used.
    """

    skipped: tuple[tuple[str, int, str], ...] = ()


def read_runs(
    path: str | os.PathLike[str],
    *,
    sequence_length: float | None = None,
    columns: Mapping[str, str] | None = None,
) -> RunsLog:
    """Final losses of runs from a CSV file, one run a row.

    Needs columns for N (parameters; "125M" and "1.3B" are numbers here), B (batch size in examples, i.e. sequences),
    K (steps) and loss (nats); the names known for each are in :data:`NAMES`. Without a column of steps, a column of
    examples, or of tokens together with ``sequence_length``, will do: K = examples / B = tokens / (B sequence_length),
    rounded to whole steps. A column that is just called D is not taken for either.

    Args:
        path: the file.
        sequence_length: tokens in an example; used only to get steps from tokens.
        columns: the header's word for a quantity, such as {"loss": "val_loss"}, where names are unknown or two fit.

    Rows are skipped, with line and reason in ``.skipped``, that have too few or too many cells, or a number that is
    missing, not finite or not above 0.

    Raises:
        OSError: for a file that cannot be read.
        TypeError, ValueError: for wrong arguments; a column that is missing or there twice; no usable row; text that is
            not UTF-8.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "runs.csv"
    >>> _ = file.write_text("Params;Batch Size;Steps;Val loss\\n125M;64;1e4;3.51\\n350M;64;2e4;nan\\n")
    >>> log = read_runs(file)
    >>> log
    RunsLog(1 run of 'runs.csv': N 1.25e+08, B 64, K 10000, loss 3.51; 1 row skipped)
    >>> log.skipped
    ((3, "Val loss: expected a finite number above 0, got 'nan'"),)
    """
    length = None if sequence_length is None else _checks.real(sequence_length, "sequence_length", low=0.0)
    table = _table(path, columns)
    find = table.columns
    duration = next((name for name in ("K", "examples", "tokens") if find((name,))), "K")
    if duration == "tokens" and length is None:
        raise ValueError(
            f"{table.path}: expected a column of steps, or sequence_length to get them from the column "
            f"{find(('tokens',))['tokens']!r}, got neither"
        )
    needed = find(("N", "B", duration, "loss"), required=True)
    kept = find(("type", "split", "exclude", "compute"))
    numbers: list[tuple[float, float, float, float, float]] = []
    words: dict[str, list[str]] = {name: [] for name in ("type", "split") if name in kept}
    exclude, lines, skipped = [], [], []
    for line, cells in table.rows:
        try:
            row = table.named(cells)
            n = _number(row, needed["N"], sized=True)
            b, k, loss = (_number(row, needed[name]) for name in ("B", duration, "loss"))
            if duration != "K":
                k = float(np.rint(k / b / (length if duration == "tokens" and length else 1.0)))
                if not 1.0 <= k < math.inf:
                    raise ValueError(f"{needed[duration]}: expected at least one batch, got {row[needed[duration]]!r}")
            left_out = _flag(row, kept["exclude"]) if "exclude" in kept else False
        except ValueError as reason:
            skipped.append((line, str(reason)))
            continue
        numbers.append((n, b, k, loss, _maybe(row[kept["compute"]]) if "compute" in kept else math.nan))
        for name, found in words.items():
            found.append(row[kept[name]].strip())
        exclude.append(left_out)
        lines.append(line)
    if not numbers:
        raise ValueError(f"{table.path}: expected at least one usable row, got none{_first(skipped)}")
    n_, b_, k_, loss_, compute = (_frozen(column) for column in np.array(numbers).T)
    return RunsLog(
        N=n_,
        B=b_,
        K=k_,
        loss=loss_,
        exclude=_frozen(np.array(exclude, dtype=np.bool_)),
        type=_frozen(np.array(words["type"])) if "type" in words else None,
        split=_frozen(np.array(words["split"])) if "split" in words else None,
        compute=compute if "compute" in kept else None,
        line=_frozen(np.array(lines, dtype=np.int64)),
        skipped=tuple(skipped),
        path=table.path,
    )


def read_curves(
    path: str | os.PathLike[str],
    *,
    warmup: Literal["linear", "constant"] | int = "linear",
    columns: Mapping[str, str] | None = None,
) -> CurvesLog:
    """Loss curves from a CSV file, or from all files of a folder that end in .csv or .tsv, by name without the ending.

    Needs columns for step, learning rate and loss (names: :data:`NAMES`), with steps increasing; a column of batch
    sizes, which must be the same number all through, is optional. A row without a loss still tells the learning rate,
    and the other way round; of a row at step 0 only the learning rate is used.

    A row at step s is the loss after s steps, and the learning rate of the step that comes next, from s to s + 1.
    Between rows the learning rate is linear in the step; but a change between two rows before which and after which it
    is constant (the row before, the row after) is a jump, and happens at the later of the two. Before the first row,
    at step s_1 with learning rate g, step k has

    - warmup="linear": g min(1, (k + 1) / s_1), from 0 to g;
    - a whole number W of warmup steps, up to s_1: g min(1, (k + 1) / W);
    - warmup="constant": g.

    Rows that cannot be used are skipped: ``.skipped`` of the result has (file name, line, reason).

    Raises:
        OSError: for what cannot be read.
        TypeError, ValueError: for wrong arguments; a folder without such files; and with the name of the file, a column
            that is missing or there twice, steps that do not increase, batch sizes that change, no usable row.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
    >>> _ = file.write_text("step,lr,loss\\n2,0.5,4.0\\n4,0.5,3.5\\n6,0.1,3.3\\n8,0.1,3.0\\n")
    >>> curves = read_curves(file)
    >>> curves["run"].loss
    array([4. , 3.5, 3.3, 3. ])
    """
    if isinstance(warmup, str) and warmup not in ("linear", "constant"):
        raise ValueError(f'warmup: expected "linear", "constant" or a number of steps, got {_checks.describe(warmup)}')
    steps = warmup if isinstance(warmup, str) else _checks.whole(warmup, "warmup")
    place = Path(path)
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in (".csv", ".tsv") and file.is_file()) \
        if place.is_dir() else [place]  # fmt: skip
    if not files:
        raise ValueError(f"{place}: expected a folder with files that end in .csv or .tsv, got none of them")
    result, skipped = CurvesLog(), []
    for file in files:
        if file.stem in result:
            raise ValueError(f"{place}: expected one file a name, got two for {file.stem!r}")
        result[file.stem], left_out = _curve(file, steps, columns)
        skipped += [(file.name, line, reason) for line, reason in left_out]
    result.skipped = tuple(skipped)
    return result


def _curve(path: Path, warmup: str | int, columns: Mapping[str, str] | None) -> tuple[LossCurve, Skipped]:
    """One file's curve, and what was left out."""
    from .curves import LossCurve

    table = _table(path, columns)
    needed = table.columns(("step", "lr", "loss"), required=True)
    batch_column = table.columns(("batch_size",)).get("batch_size")
    rates: dict[int, float] = {}
    losses: dict[int, float] = {}
    skipped = []
    last = batch = None
    for line, cells in table.rows:
        try:
            row = table.named(cells)
            step = _number(row, needed["step"], zero=True)
            if step != math.floor(step) or step > MOST_STEPS:
                told = f"a whole number up to {MOST_STEPS:.0e}"
                raise ValueError(f"{needed['step']}: expected {told}, got {row[needed['step']].strip()!r}")
            lr, loss = (None if not row[needed[name]].strip() else _number(row, needed[name], zero=name == "lr")
                        for name in ("lr", "loss"))  # fmt: skip
            size = _number(row, batch_column) if batch_column and row[batch_column].strip() else batch
        except ValueError as reason:
            skipped.append((line, str(reason)))
            continue
        if last is not None and step <= last:
            raise ValueError(f"{path}, line {line}: expected steps that increase, got {step:.0f} after {last:.0f}")
        if batch is not None and size != batch:
            raise ValueError(f"{path}, line {line}: expected one batch size all through, got {size:g} after {batch:g}")
        last, batch = step, size
        if lr is not None:
            rates[int(step)] = lr
        if loss is not None and step > 0:
            losses[int(step)] = loss
    if not rates or not losses:
        raise ValueError(f"{path}: expected rows with a learning rate and with a loss, got none{_first(skipped)}")
    steps = np.array(list(losses))
    lr_array = _per_step(np.array(list(rates)), np.array(list(rates.values())), int(steps[-1]), warmup)
    try:
        curve = LossCurve(steps, np.array(list(losses.values())), lr_array, 1.0 if batch is None else batch)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return curve, tuple(skipped)


def _per_step(rows: IntArray, lr: FloatArray, steps: int, warmup: str | int) -> FloatArray:
    """Learning rate of steps 0 ... steps - 1, (steps,), from that of some; see :func:`read_curves`."""
    at = np.arange(steps)
    found = np.interp(at, rows, lr)
    same = np.isclose(lr[1:], lr[:-1], rtol=1e-6, atol=0.0)
    for i in np.flatnonzero(same[:-2] & ~same[1:-1] & same[2:]) + 1:  # from row i to i + 1
        found[rows[i] : rows[i + 1]] = lr[i]
    begin = min(int(rows[0]), steps)
    if warmup != "constant":
        ramp = begin if warmup == "linear" else min(int(warmup), begin)
        found[:begin] = lr[0] * np.minimum(1.0, (at[:begin] + 1.0) / max(ramp, 1))
    return found


@dataclass(frozen=True)
class _Table:
    """A CSV file: its header, and its rows with the line each begins at."""

    path: str
    header: list[str]
    rows: list[tuple[int, list[str]]] = field(repr=False)
    given: Mapping[str, str]

    def columns(self, wanted: tuple[str, ...], required: bool = False) -> dict[str, str]:
        """The header's word for each quantity that it has; a ValueError where two fit, or none is there if required."""
        found: dict[str, str] = {}
        for name in wanted:
            if name in self.given:
                found[name] = self.given[name]
                continue
            known = {_plain(word) for word in NAMES[name]}
            fits = [word for word in self.header if _plain(word) in known]
            if len(fits) > 1:
                raise ValueError(
                    f"{self.path}: expected one column for {name}, got {' and '.join(map(repr, fits))}; rename one, or "
                    f"say which with columns={{{name!r}: {fits[0]!r}}} (in the shell: --column {name}='{fits[0]}')"
                )
            if fits:
                found[name] = fits[0]
        missing = [name for name in wanted if name not in found]
        if required and missing:
            raise ValueError(self._missing(missing))
        return found

    def _missing(self, names: list[str]) -> str:
        if all(map(_is_number, self.header)):
            return f"{self.path}: expected a first line that names the columns, got numbers: {', '.join(self.header)}"
        names = ["K" if name in ("examples", "tokens") else name for name in names]
        told = "; ".join(f"{name} ({MEANINGS[name]}): one of {', '.join(NAMES[name])}" for name in names)
        plain = {_plain(word) for word in self.header}
        other = ""
        if "lr" not in names and plain & {_plain(word) for word in NAMES["lr"]}:
            other = "; is this a loss curve? nqm.scaling.read_curves reads them (nqm scaling --curves)"
        return (
            f"{self.path}: expected columns that are missing, {told}; got {', '.join(map(repr, self.header))} (rename, "
            f"or say which with columns={{{names[0]!r}: ...}}, in the shell --column {names[0]}=...){other}"
        )

    def named(self, cells: list[str]) -> dict[str, str]:
        """A row's cells by the header's words; a ValueError where the number of cells is wrong."""
        surplus = cells[len(self.header) :]
        if len(cells) < len(self.header) or any(cell.strip() for cell in surplus):
            raise ValueError(f"expected {len(self.header)} cells, got {len(cells)}")
        return dict(zip(self.header, cells, strict=False))


def _table(path: str | os.PathLike[str], given: Mapping[str, str] | None) -> _Table:
    name = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError(f"{name}: expected a file, got a folder (of loss curves? nqm.scaling.read_curves)")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            text = ["" if line.lstrip().startswith("#") else line for line in stream]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: expected text in UTF-8, got byte {error.object[error.start]:#x}") from None
    first = next((line for line in text if line.strip()), None)
    if first is None:
        raise ValueError(f"{name}: expected a line that names the columns, got an empty file")
    separator = max(",;\t", key=first.count)  # the first of equals
    rows = list(_records(text, separator, name))
    header = [word.strip() for word in rows[0][1]]
    repeated = [word for word in header if word and header.count(word) > 1]
    if repeated:
        raise ValueError(f"{name}: expected columns of different names, got {repeated[0]!r} twice")
    if given is not None:
        _checks.instance(given, Mapping, "columns", 'a dict such as {"loss": "val_loss"}, or None')
    chosen = dict(given or {})
    for quantity, word in chosen.items():
        if quantity not in NAMES:
            raise ValueError(f"columns: expected quantities out of {', '.join(NAMES)}, got {quantity!r}")
        if word not in header:
            raise ValueError(f"{name}: expected the column {word!r}, got {', '.join(map(repr, header))}")
    return _Table(name, header, rows[1:], chosen)


def _records(text: list[str], separator: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the line each begins at."""
    reader = csv.reader(text, delimiter=separator)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{name}, line {line}: expected comma-separated values, got {error}") from None


def _plain(word: str) -> str:
    """A column's name without capitals, punctuation and what stands in brackets."""
    return re.sub(r"[\W_]", "", re.sub(r"\(.*?\)|\[.*?\]", "", word)).lower()


def number(text: str, *, sized: bool = False, zero: bool = False) -> float:
    """Text as a finite number > 0 (``zero``: >= 0); ``sized``: with k, M, B or T for powers of ten.

    >>> number("1.1B", sized=True)
    1100000000.0
    """
    text = text.strip()
    ending = POWERS.get(text[-1:].lower(), "") if sized else ""
    found = _maybe(text.removesuffix(text[-1:]).strip() + ending if ending else text)
    if not (math.isfinite(found) and (found > 0.0 or (zero and found == 0.0))):
        came = repr(text) if text else "an empty cell"
        raise ValueError(f"expected a finite number {'of at least' if zero else 'above'} 0, got {came}")
    return found


def _number(row: Mapping[str, str], column: str, *, sized: bool = False, zero: bool = False) -> float:
    """A row's :func:`number` in a column."""
    try:
        return number(row[column], sized=sized, zero=zero)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _maybe(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_number(text: str) -> bool:
    return math.isfinite(_maybe(text))


def _flag(row: Mapping[str, str], column: str) -> bool:
    text = row[column].strip().lower()
    if text not in YES + NO:
        raise ValueError(f"{column}: expected true or false, got {row[column].strip()!r}")
    return text in YES


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


def _first(skipped: list[tuple[int, str]]) -> str:
    """The first reasons why rows were skipped, for an error."""
    told = "; ".join(f"line {line}: {reason}" for line, reason in skipped[:SHOWN])
    rest = len(skipped) - SHOWN
    return f" ({told}{f'; and {rest} more' if rest > 0 else ''})" if skipped else " (no rows below the header)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _range(values: FloatArray) -> str:
    low, high = f"{values.min():.6g}", f"{values.max():.6g}"
    return low if low == high else f"{low} to {high}"


def example_runs() -> RunsLog:
    """The example that ships: runs of one made-up family of models, as :func:`write_example` writes them.

    Column ``type`` names two families: isoflop (six sizes at each of five computes) and isotoken (nine batch sizes at
    each of four sizes with fixed examples). Cosine schedule, 1% warmup, sequences of 128 tokens. One run went wrong.

    >>> len(example_runs())
    66
    """
    return read_runs(Path(__file__).with_name("example_runs.csv"))


def write_example(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write a log such as that of :func:`example_runs`, which has seed 0; returns the path.

    Losses are those of :class:`nqm.scaling.RunsFit` with the parameters :data:`TRUTH`, a cosine schedule and 1% warmup,
    times exp(0.005 xi), xi ~ N(0, 1); and one, drawn by chance, times 1.15, as of a run that went wrong.
    """
    from .._writing import write_whole

    random = np.random.default_rng(_checks.whole(seed, "seed"))
    runs = planned_runs()
    losses = true_losses(*(np.array(column, dtype=float) for column in list(zip(*runs, strict=True))[1:]))
    losses *= np.exp(SPREAD * random.standard_normal(len(runs)))
    losses[random.integers(len(runs))] *= FAILED
    lines = [
        f"# Made up by nqm.scaling.logs.write_example: cosine schedule, {WARMUP:.0%} warmup, {LENGTH}-token examples",
        "N,B,K,loss,type",
        *(f"{n},{b},{k},{loss:.4f},{kind}" for (kind, n, b, k), loss in zip(runs, losses, strict=True)),
    ]
    text = "\n".join(lines) + "\n"
    return write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def planned_runs() -> list[tuple[str, int, int, int]]:
    """Type, N, B and K of the example's runs."""
    runs = []
    for level, b in enumerate((32, 64, 128, 128, 256)):
        compute = 1e15 * 4.0**level  # FLOP, 6 N times the tokens
        for n in (500_000 * 2 ** (level + i) for i in range(6)):
            runs.append(("isoflop", n, b, round(compute / (6 * n * b * LENGTH))))
    for level in range(4):
        n, examples = 2_000_000 * 4**level, 2 ** (19 + level)
        runs += [("isotoken", n, b, examples // b) for b in (2 ** (3 + level + i) for i in range(9))]
    return runs


def true_losses(N: FloatArray, B: FloatArray, K: FloatArray) -> FloatArray:
    """What the example's losses are before the noise."""
    from .runs import RunsFit

    truth = np.array(list(TRUTH.values()))
    truth[0] -= 1.0
    theta = np.append(np.log(truth[:-1]), truth[-1])
    return RunsFit({}, "cosine", WARMUP, 0, theta, 0, 0).losses(N, B, K, draws=0)[0]
