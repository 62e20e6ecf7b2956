"""What measuring a network gives: a noisy quadratic that knows the real loss, and its file."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ... import NoisyQuadratic
from ..._io import write_whole

__all__ = ["GrowingNoise", "MeasuredQuadratic", "PowerLawFit", "load"]

_KIND = "nqm.validation.MeasuredQuadratic 1"
_ARRAYS = ("curvature", "noise", "init", "gradient")
_NUMBERS = ("loss_at", "loss_start", "noise_scale", "noise_scale_start", "noise_growth")


class PowerLawFit(NamedTuple):
    """h_i = scale * i^-exponent for i = 1 ... nodes; rms: root mean square error of log h_i (natural logarithm)."""

    exponent: float
    scale: float
    rms: float
    nodes: int


class GrowingNoise(NamedTuple):
    """A problem whose noise grows with the loss, to be asked about ``batch_size / growth`` instead of batch_size."""

    problem: NoisyQuadratic
    growth: float


class MeasuredQuadratic(NoisyQuadratic):
    """What :func:`measure` found: a noisy quadratic with the numbers that tie it to the real loss.

    loss(theta) = floor + 1/2 sum_i h_i theta_i^2, floor = loss_at - 1/2 sum_i g_i^2 / h_i,

    with theta counted from the quadratic's minimum. So ``nqm.risk(measured, ...) + measured.floor`` predicts the loss
    of training. It stands wherever a NoisyQuadratic does; ``binned`` and ``compressed`` give plain ones, since bins
    have no gradient.

    Args:
        curvature, noise, init, gradient: h_i > 0, c_i, s_i^2 and g_i, arrays of shape (directions,).
        loss_at: loss where it was measured. loss_start: real loss of the start. Both on the examples measured.
        noise_scale, noise_scale_start: simple noise scale tr(C) / |G|^2 in examples (McCandlish et al., 2018), over all
            parameters, there and at the start; inf where the gradient vanishes.
        provenance: where the numbers come from; a dict that JSON can hold.
        noise_growth: how fast the noise's trace grows with the loss, relative to least squares with one output on
            Gaussian features (1: that fast; k outputs: about 1 / k); NaN where it does not grow.

    Raises:
        TypeError, ValueError: as :class:`nqm.NoisyQuadratic`; ValueError for gradients of another shape or not finite.

    >>> measured = MeasuredQuadratic(
    ...     [1.0, 0.1], [1.0, 0.2], [4.0, 1.0], gradient=[0.5, 0.1], loss_at=2.0, loss_start=3.9, noise_scale=4.6,
    ...     noise_scale_start=0.3, provenance={"model": "by hand"})
    >>> measured.floor
    1.825
    >>> measured.initial_risk + measured.floor  # the quadratic's loss of the start
    3.875
    """

    gradient: NDArray[np.float64]

    def __init__(
        self,
        curvature: ArrayLike,
        noise: ArrayLike,
        init: ArrayLike,
        *,
        gradient: ArrayLike,
        loss_at: float,
        loss_start: float,
        noise_scale: float,
        noise_scale_start: float,
        provenance: Mapping[str, Any],
        noise_growth: float = 1.0,
    ) -> None:
        super().__init__(curvature, noise, init)
        self.gradient = np.array(gradient, dtype=np.float64)
        if self.gradient.shape != self.curvature.shape or not np.all(np.isfinite(self.gradient)):
            raise ValueError(
                f"gradient: expected {self.curvature.size} finite numbers, got an array of shape {self.gradient.shape}"
            )
        self.gradient.flags.writeable = False
        self.loss_at, self.loss_start = float(loss_at), float(loss_start)
        self.noise_scale, self.noise_scale_start = float(noise_scale), float(noise_scale_start)
        self.noise_growth = float(noise_growth)
        self.floor = self.loss_at - 0.5 * float(np.sum(self.gradient**2 / self.curvature))
        self.provenance = dict(provenance)

    power_law = NoisyQuadratic.power_law  # what these make was not measured
    from_matrices = NoisyQuadratic.from_matrices

    def _plain(self) -> NoisyQuadratic:
        """The same problem without what it knows of the real loss."""
        return NoisyQuadratic(self.curvature, self.noise, self.init)

    def binned(self, bins: int = 100) -> NoisyQuadratic:
        """:meth:`NoisyQuadratic.binned`, a plain problem."""
        return self._plain().binned(bins)

    def compressed(self, rtol: float = 1e-9) -> NoisyQuadratic:
        """:meth:`NoisyQuadratic.compressed`, a plain problem."""
        return self._plain().compressed(rtol)

    def __reduce__(self) -> tuple[Any, ...]:
        numbers: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        make = partial(MeasuredQuadratic, gradient=self.gradient, provenance=self.provenance, **numbers)
        return make, (self.curvature, self.noise, self.init)

    def risk_at(self, loss: float) -> float:
        """The model's risk where the real loss is ``loss``: a ``target`` for ``nqm.tune`` and ``nqm.sweep``.

        Raises ValueError for a loss at or below the floor.
        """
        if not self.floor < loss < math.inf:
            raise ValueError(
                f"loss: a target below what is reachable: expected more than {self.floor:.6g}, got {loss:.6g}"
            )
        return float(loss) - self.floor

    def with_growing_noise(self) -> GrowingNoise:
        """The same curvature and start, but noise that grows with the loss, as in least squares on Gaussian features.

        With k = noise_growth its covariance at a risk L is k / B of H (label_noise + 2 L) + G G^T, so batches of B
        examples act like B / k there; label_noise = (tr(C) / k - |G|^2) / sum h - 2 L makes tr(C) right where it was
        measured, at L = loss_at - floor (or is 1% of the first term, where the rest is larger). Additive noise,
        measured near the end, is too small on the way there. Raises ValueError where no growth was measured (NaN).
        """
        if not self.noise_growth > 0.0:
            raise ValueError(
                "noise_growth: expected noise that grows from where it was measured half way to the start, got none"
            )
        ratio = float(self.noise.sum() / self.curvature.sum()) / self.noise_growth
        slope = float((self.gradient**2).sum() / self.curvature.sum())
        label_noise = max(ratio - slope - 2.0 * (self.loss_at - self.floor), 0.01 * ratio)
        problem = NoisyQuadratic(
            self.curvature, init=self.init, noise_model="gaussian-features", label_noise=label_noise
        )
        return GrowingNoise(problem, self.noise_growth)

    def power_law_fit(self, share: float = 0.99) -> PowerLawFit:
        """Least squares of log h_i against log i, over the leading directions that hold ``share`` of the trace.

        The rest are many and next to flat: over all directions they would set the exponent alone, though the loss
        hardly feels them. At least three are taken. Raises ValueError where there are not three, or no such share.

        >>> h, zero = np.arange(1.0, 501.0) ** -1.5, np.zeros(500)
        >>> measured = MeasuredQuadratic(h, zero, zero, gradient=zero, loss_at=1.0, loss_start=1.0,
        ...                              noise_scale=1.0, noise_scale_start=1.0, provenance={})
        >>> round(measured.power_law_fit().exponent, 6)
        1.5
        """
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share: expected a share of the trace, above 0 and at most 1, got {share}")
        h = np.sort(self.curvature)[::-1]
        if h.size < 3:
            raise ValueError(f"power_law_fit: expected at least 3 directions, got {h.size}")
        sums = np.cumsum(h)
        count = max(3, min(h.size, int(np.searchsorted(sums, share * sums[-1])) + 1))
        x, y = np.log(np.arange(1, count + 1)), np.log(h[:count])
        slope, height = np.polynomial.polynomial.polyfit(x, y, 1)[::-1]
        rms = np.sqrt(np.mean((y - height - slope * x) ** 2))
        return PowerLawFit(-float(slope), float(np.exp(height)), float(rms), count)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to ``path`` (.npz), whole or not at all; :func:`load` reads it back to the last bit."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in (*_ARRAYS, *_NUMBERS)}
        words: dict[str, Any] = {"kind": np.array(_KIND), "provenance": np.array(json.dumps(self.provenance))}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:  # savez would add its ending to a name
                np.savez(stream, **columns, **words)

        return write_whole(path, write)

    def summary(self) -> str:
        """One screen: the numbers, and where they come from."""
        h = self.curvature
        lines = [
            repr(self),
            f"loss             {self.loss_at:.6g} where measured, {self.loss_start:.6g} at the start",
            f"quadratic        floor {self.floor:.6g}, loss of the start {self.floor + self.initial_risk:.6g}",
            f"curvature        {h.min():.4g} to {h.max():.4g}, trace {h.sum():.6g}",
            f"noise            trace {self.noise.sum():.6g}",
            f"noise scale      {self.noise_scale:.4g} examples where measured, {self.noise_scale_start:.4g} at start",
            f"noise growth     {self.noise_growth:.3g} of that of Gaussian features",
        ]
        if h.size >= 3:
            fit = self.power_law_fit()
            lines.append(
                f"power law        {fit.scale:.4g} i^-{fit.exponent:.4g} over the first {fit.nodes}, "
                f"error {fit.rms:.2g} in log h"
            )
        lines += [f"{key:<16} {_shown(value)}" for key, value in self.provenance.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        found = self.provenance
        model, method = found.get("model", "unknown model"), found.get("curvature", "curvature unknown")
        return (
            f"MeasuredQuadratic({model}, {method}, dim={self.dim:g}, loss {self.loss_at:.4g}, floor {self.floor:.4g}, "
            f"noise scale {self.noise_scale:.4g})"
        )


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def load(path: str | os.PathLike[str]) -> MeasuredQuadratic:
    """What :meth:`MeasuredQuadratic.save` wrote. Raises ValueError for a file of another kind."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
        if str(columns.pop("kind")) != _KIND:
            raise ValueError("another kind")
        provenance = json.loads(str(columns.pop("provenance")))
        numbers: dict[str, Any] = {name: float(columns[name]) for name in _NUMBERS}
        h, noise, init, gradient = (columns[name] for name in _ARRAYS)
        return MeasuredQuadratic(h, noise, init, gradient=gradient, provenance=provenance, **numbers)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{os.fspath(path)}: expected a file written by MeasuredQuadratic.save ({_KIND}), got another ({error})"
        ) from error
