"""Columns known by their names, and the numbers in their cells.

Columns are known in any order and spelling: "Batch Size", "batch_size" and "BATCH-SIZE (sequences)" are one. Numbers
are as Python writes them (1e9, 1_000); sizes, which are all but losses and learning rates, may end in k, M, B or T
(10^3, 10^6, 10^9, 10^12), or their header may: "Params (M)" counts millions, as does "Params (millions)".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["MEANINGS", "NAMES", "Column", "column_in_units", "is_number", "normalized", "number"]

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
    "step": ("step", "steps", "k", "iteration", "iterations", "iter", "global_step", "train_step", "training_step"),
    "lr": ("lr", "learning_rate", "learningrate", "eta"),
    "batch_size": ("b", "batch", "batch_size", "global_batch_size", "global_batch", "train_batch_size", "bs"),
}  # fmt: skip
"""Names of columns that are known for each quantity; capitals and punctuation do not count."""

MEANINGS: Final = {
    "N": "parameters", "B": "batch size in examples", "K": "steps", "loss": "loss in nats", "step": "step",
    "lr": "learning rate",
}  # fmt: skip
SIZES: Final = ("N", "B", "K", "examples", "tokens", "step", "batch_size")
POWERS: Final = {"k": "e3", "m": "e6", "b": "e9", "t": "e12"}
WORDS: Final = {
    "thousand": "e3", "million": "e6", "billion": "e9", "trillion": "e12",
    "thousands": "e3", "millions": "e6", "billions": "e9", "trillions": "e12",
}  # fmt: skip
IN_EXAMPLES: Final = ("token", "examples", "divide it by the sequence length")
WRONG_UNITS: Final = {
    "B": IN_EXAMPLES, "batch_size": IN_EXAMPLES, "examples": IN_EXAMPLES,
    "loss": ("bit", "nats", "multiply it by ln 2 = 0.693147"),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column: the header's word for it; for a size also the power of ten of numbers without a suffix, e6 for M."""

    word: str
    sized: bool = False
    power: str = ""

    def text(self, row: Mapping[str, str]) -> str:
        return row[self.word].strip()

    def number(self, row: Mapping[str, str], *, zero: bool = False) -> float:
        """A row's :func:`number`."""
        try:
            return number(row[self.word], sized=self.sized, zero=zero, power=self.power)
        except ValueError as error:
            raise ValueError(f"{self.word}: {error}") from None


def normalized(word: str) -> str:
    """A column's name without capitals, punctuation and what stands in brackets."""
    return re.sub(r"[\W_]", "", re.sub(r"\(.*?\)|\[.*?\]", "", word)).lower()


def column_in_units(path: str, name: str, word: str) -> Column:
    """The column headed ``word``, with the unit that stands in its brackets; a ValueError for one that is wrong."""
    unit = " ".join(re.findall(r"[(\[](.*?)[)\]]", word))
    wrong, right, remedy = WRONG_UNITS.get(name, ("", "", ""))
    if wrong and wrong in unit.lower():
        raise ValueError(f"{path}: expected {name} in {right}, got {word!r}: {remedy}, and rename the column")
    if name not in SIZES:
        return Column(word)
    few = name in ("B", "K", "step", "batch_size")  # B and T after these are symbols, and no unit
    if unit == "K" and name in ("K", "step"):
        raise ValueError(
            f"{path}: expected steps, or thousands of them, got {word!r}, which may be either: rename it to "
            f"'steps' or to 'steps (thousands)'"
        )
    known = {unit: power for unit, power in (POWERS | WORDS).items() if not (few and unit in ("b", "t"))}
    powers = [known[part] for part in re.split(r"[\s,;/]+", unit.lower()) if part in known]
    return Column(word, True, powers[0] if powers else "")


def number(text: str, *, sized: bool = False, zero: bool = False, power: str = "") -> float:
    """Text as a finite number > 0 (``zero``: >= 0).

    sized: it may end in k, M, B or T for a power of ten. power: that of a number without such an ending, as in "e6".

    >>> number("1.1B", sized=True)
    1100000000.0
    """
    text = text.strip()
    ending = POWERS.get(text[-1:].lower(), "") if sized else ""
    found = _times(text[:-1].strip(), ending) if ending else _times(text, power)
    if not (math.isfinite(found) and (found > 0.0 or (zero and found == 0.0))):
        came = repr(text) if text else "an empty cell"
        raise ValueError(f"expected a finite number {'of at least' if zero else 'above'} 0, got {came}")
    return found


def _times(text: str, power: str) -> float:
    """The number times a power of ten; NaN for what is no number."""
    for exponent, factor in ((power, 1.0), ("", float(f"1{power}"))):  # 1.1e9 is nearer to 1.1B than 1.1 times 1e9
        try:
            return float(text + exponent) * factor
        except ValueError:
            pass
    return math.nan


def is_number(text: str) -> bool:
    return math.isfinite(_times(text, ""))
