"""Optimizers as small linear filters: immutable descriptions, no state, no training loop.

On a coordinate with curvature h, preconditioner h^-p and x = lr h^(1-p), every optimizer here is

    z' = A z - lr h^-p gain (h query . z + eps),   theta = readout . z,   z = start * theta_0 at step 0,

with a state z of one to three numbers. ``transition`` A, ``gain``, ``query`` (where the gradient is taken),
``readout`` (what the risk is the risk of) and ``start`` are what :class:`LinearOptimizer` asks for; one step is
M(x) = A - x gain query^T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _checks
from .._checks import FloatArray
from .._double_double import pair_mul, pair_of, two_sum
from ..schedules import Schedule


class _Free:
    """The type of :data:`FREE`."""

    def __repr__(self) -> str:
        return "nqm.FREE"

    def __reduce__(self) -> str:  # one object in every process
        return "FREE"


FREE: Final = _Free()
"""Stands where a hyperparameter is to be found by :func:`nqm.tune`."""

Number = float | np.floating[Any] | np.integer[Any] | _Free
"""What a single hyperparameter may be given as; lr may be a Schedule as well."""

Numbers = Number | Sequence[float] | Sequence[Sequence[float]] | NDArray[np.floating[Any] | np.integer[Any]]
"""What hyperparameters may be given as, where they may be arrays."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Hyperparameter = TypeVar("Hyperparameter", bound=float | FloatArray, default=Any, covariant=True)
    """What an optimizer's hyperparameters are kept as: ``SGD[float]`` has numbers, ``SGD[FloatArray]`` arrays."""
else:
    from typing import TypeVar

    Hyperparameter = TypeVar("Hyperparameter")


@dataclass(frozen=True)
class Filter:
    """The linear filter of an optimizer, for arrays of hyperparameters of common shape ``S``.

    transition: (*S, 2, k, k) and gain: (*S, 2, k), high and low part along the axis of length 2.
    query, readout: (k,); start: k floats. fresh: (*S, 2), 1 - decay where the last state is an average of what the
    others read out (``readout`` then says which readout), else 0. scaled: k of 0 or 1, the states that are in units of
    lr, as a velocity is: where lr changes on the way, what goes on is the state divided by lr.
    """

    transition: FloatArray
    gain: FloatArray
    fresh: FloatArray
    query: FloatArray
    readout: FloatArray
    start: tuple[float, ...]
    scaled: tuple[int, ...]


class Optimizer(Generic[Hyperparameter]):
    """What all optimizers share.

    Hyperparameters are numbers, arrays (NumPy broadcasting) or :data:`FREE`; lr may be a :class:`nqm.Schedule`.
    """

    _limits: ClassVar[dict[str, dict[str, Any]]] = {}

    def __post_init__(self) -> None:
        for name, limits in self._limits.items():
            value = getattr(self, name)
            if value is not FREE:
                object.__setattr__(self, name, _hyperparameter(value, name, limits))
        self.shape  # noqa: B018 - arrays that do not broadcast are refused here

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All numbers of the optimizer by name: lr, momentum, power, decay, as far as it has them (a new dict)."""
        inner = getattr(self, "optimizer", None)
        return {**(inner.hyperparameters if inner else {}), **{name: getattr(self, name) for name in self._limits}}

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the hyperparameters that are :data:`FREE`."""
        return tuple(name for name, value in self.hyperparameters.items() if value is FREE)

    @property
    def schedule(self) -> Schedule | None:
        """The learning rate, where it is a :class:`nqm.Schedule`."""
        lr = self.hyperparameters.get("lr")
        return lr if isinstance(lr, Schedule) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the hyperparameters, () for plain numbers and schedules."""
        return _checks.broadcast(
            **{k: np.shape(v) for k, v in self.hyperparameters.items() if not isinstance(v, (_Free, Schedule))}
        )

    def with_values(self, **values: ArrayLike) -> Any:
        """The same optimizer with some hyperparameters replaced, also inside Preconditioned and EMA.

        >>> EMA(SGD(FREE), decay=0.9).with_values(lr=0.5)
        EMA(SGD(lr=0.5), decay=0.9)
        """
        unknown = set(values) - set(self.hyperparameters)
        if unknown:
            raise ValueError(f"expected hyperparameters of {self}, got {', '.join(sorted(unknown))}")
        changed: dict[str, Any] = {
            f.name: values[f.name] if f.name in values else getattr(self, f.name)
            for f in fields(self)  # type: ignore[arg-type]
        }
        if isinstance(changed.get("optimizer"), Optimizer):
            inner = changed["optimizer"]
            changed["optimizer"] = inner.with_values(**{k: v for k, v in values.items() if k in inner.hyperparameters})
        return type(self)(**changed)

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        """The filter (A, gain, query, readout, start); ``values`` may stand in for the hyperparameters."""
        raise NotImplementedError

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        """The least x = lr h^(1-p) > 0 at which a coordinate no longer converges."""
        raise NotImplementedError

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        """x^2 sum_t (query^T M(x)^t gain)^2: variance in the long run, where the gradient is taken, for gradient noise
        of variance h^2 (so that a step adds x gain). ``values`` broadcast with x = lr h^(1-p); inf where unstable."""
        inner: Optimizer = getattr(self, "optimizer")  # noqa: B009 - what wraps another asks it
        return inner.noise_gain(x, values)

    @property
    def noise_gain_grows(self) -> bool:
        """Whether :meth:`noise_gain` is known to grow with x, so that what is unstable stays so at larger x."""
        inner = getattr(self, "optimizer", None)
        return inner is None or inner.noise_gain_grows

    @property
    def states(self) -> int:
        """Number of state variables of the filter, 1 to 3; those of FREE values counted."""
        inner = getattr(self, "optimizer", None)
        return inner.states if inner else 1

    def require_fixed(self) -> None:
        if self.free:
            raise TypeError(
                f"expected numbers for all hyperparameters, got {self}: {', '.join(self.free)} is nqm.FREE. "
                "nqm.tune finds free values; with_values(...) sets them"
            )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, f.name) == getattr(other, f.name)
            if isinstance(getattr(self, f.name), (Schedule, Optimizer))
            else np.array_equal(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    def __hash__(self) -> int:
        return hash(repr(self))


@dataclass(frozen=True, eq=False, repr=False)
class SGD(Optimizer[Hyperparameter]):
    """Stochastic gradient descent in the conventions of ``torch.optim.SGD`` with dampening 0.

        m' = momentum m + g,   theta' = theta - lr m'                       (heavy ball; zhang2019 eq. 5)
        m' = momentum m + g,   theta' = theta - lr (g + momentum m')        (nesterov=True)

    with g = h theta + noise and m = 0 at step 0. momentum = 0 is plain SGD (zhang2019 eq. 2).

    Args:
        lr: learning rate > 0, in units of 1 / curvature; a number, an array, a :class:`nqm.Schedule` or ``nqm.FREE``.
            An array or list stands for as many different runs, one a learning rate; learning rates that follow each
            other in one run are a schedule: ``nqm.Schedule(lrs, 1)``, one a step, or ``nqm.Schedule.from_function``.
            As in torch, a new learning rate also multiplies what is left in the momentum buffer m.
        momentum: in [0, 1).
        nesterov: take the torch form of Nesterov's momentum; as in torch, with a momentum above 0 (or FREE).

    Raises:
        TypeError, ValueError: for what is not a finite number in range, or nesterov=True with momentum 0.

    >>> SGD(0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9)
    """

    lr: Hyperparameter
    momentum: Hyperparameter = 0.0  # type: ignore[assignment]
    nesterov: bool = False
    _limits: ClassVar[dict[str, dict[str, Any]]] = {
        "lr": {"low": 0.0},
        "momentum": {"low": 0.0, "high": 1.0, "closed": "low"},
    }

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: SGD[float], lr: Number | Schedule, momentum: Number = 0.0, nesterov: bool = False
        ) -> None: ...
        @overload
        def __init__(
            self: SGD[FloatArray], lr: Numbers | Schedule, momentum: Numbers = 0.0, nesterov: bool = False
        ) -> None: ...
        def __init__(self, lr: Any, momentum: Any = 0.0, nesterov: bool = False) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.instance(self.nesterov, (bool, np.bool_), "nesterov", "True or False")
        if self.nesterov and _is_zero(self.momentum):
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0; leave it out for plain SGD")

    def with_values(self, **values: Any) -> Any:
        """As for any optimizer; at momentum 0, where Nesterov's form is plain SGD, nesterov becomes False."""
        if self.nesterov and _is_zero(values.get("momentum", FREE)):
            return replace(self, nesterov=False).with_values(**values)
        return super().with_values(**values)

    def __repr__(self) -> str:
        parts = [f"lr={_show(self.lr)}"]
        if not _is_zero(self.momentum):
            parts.append(f"momentum={_show(self.momentum)}")
        if self.nesterov:
            parts.append("nesterov=True")
        return f"SGD({', '.join(parts)})"

    @property
    def states(self) -> int:
        return 1 if _is_zero(self.momentum) else 2

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        """Plain: z = theta. Heavy ball: z = (theta, v) with v = -lr m. Nesterov: z = (theta, momentum v)."""
        momentum = (values or self.hyperparameters)["momentum"]
        if _is_zero(momentum):
            return _plain()
        # M = [[1 - x, m], [-x, m]], for Nesterov [[1 - (1 + m) x, m], [-m x, m]]
        gain = [two_sum(1.0, momentum), momentum] if self.nesterov else [1.0, 1.0]
        transition = [[1.0, momentum], [0.0, momentum]]
        return _filter(transition, gain, query=[1.0, 0.0], readout=[1.0, 0.0], start=(1.0, 0.0), scaled=(0, 1))

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        """2 (1 + m); with Nesterov's momentum 2 (1 + m) / (1 + 2 m): where a root of M reaches -1."""
        momentum = (values or self.hyperparameters)["momentum"]
        limit = 2.0 * (1.0 + momentum)
        return limit / (1.0 + 2.0 * momentum) if self.nesterov else limit

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        """Of theta, an ARMA(2, 1) process: x (1 + m) / ((1 - m) (2 + 2 m - x)), or with Nesterov's momentum

        x ((1 + m)^2 + m^2 - m (1 - x) (1 + 2 m)) / ((1 - m + m x) (2 + 2 m - (1 + 2 m) x)).
        """
        m = np.asarray((values or self.hyperparameters)["momentum"])
        if self.nesterov:
            above = (1.0 + m) ** 2 + m * m - m * (1.0 - x) * (1.0 + 2.0 * m)
            below = (1.0 - m + m * x) * (2.0 + 2.0 * m - (1.0 + 2.0 * m) * x)
        else:
            above, below = 1.0 + m, (1.0 - m) * (2.0 + 2.0 * m - x)
        with np.errstate(divide="ignore"):
            return np.where(below > 0.0, x * above / below, np.inf)


@dataclass(frozen=True, eq=False, repr=False)
class Preconditioned(Optimizer[Hyperparameter]):
    """Gradients multiplied by P^-1 with P = H^power before ``optimizer`` sees them (zhang2019 eq. 8).

    power = 0 changes nothing, power = 1 is Newton's method; Adam and K-FAC lie between. The learning rate is then in
    units of curvature^(power - 1).

    >>> Preconditioned(SGD(0.1), power=0.5)
    Preconditioned(SGD(lr=0.1), power=0.5)
    """

    optimizer: Optimizer[Hyperparameter]
    power: Hyperparameter
    _limits: ClassVar[dict[str, dict[str, Any]]] = {"power": {"low": 0.0, "high": 1.0, "closed": "both"}}

    if TYPE_CHECKING:

        @overload
        def __init__(self: Preconditioned[float], optimizer: Optimizer[float], power: Number) -> None: ...
        @overload
        def __init__(self: Preconditioned[FloatArray], optimizer: Optimizer, power: Numbers) -> None: ...
        def __init__(self, optimizer: Any, power: Any) -> None: ...

    def __post_init__(self) -> None:
        _wraps(self, "power")
        if isinstance(self.power, _Free):
            raise TypeError("power: expected numbers in [0, 1], got nqm.FREE; lr, momentum and decay can be FREE")
        super().__post_init__()

    def __repr__(self) -> str:
        return f"Preconditioned({self.optimizer}, power={_show(self.power)})"

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        return self.optimizer.filter(values)

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        return self.optimizer.stability_limit(values)


@dataclass(frozen=True, eq=False, repr=False)
class EMA(Optimizer[Hyperparameter]):
    """``optimizer`` with an exponential moving average of its iterates (zhang2019 eq. 11).

        average' = decay average + (1 - decay) theta',   average = theta_0 at step 0

    The risk is that of the average. decay = 0 changes nothing.

    >>> EMA(SGD(0.1), decay=0.99)
    EMA(SGD(lr=0.1), decay=0.99)
    """

    optimizer: Optimizer[Hyperparameter]
    decay: Hyperparameter
    _limits: ClassVar[dict[str, dict[str, Any]]] = {"decay": {"low": 0.0, "high": 1.0, "closed": "low"}}

    if TYPE_CHECKING:

        @overload
        def __init__(self: EMA[float], optimizer: Optimizer[float], decay: Number) -> None: ...
        @overload
        def __init__(self: EMA[FloatArray], optimizer: Optimizer, decay: Numbers) -> None: ...
        def __init__(self, optimizer: Any, decay: Any) -> None: ...

    def __post_init__(self) -> None:
        _wraps(self, "decay")
        if self.optimizer.states > 2:
            raise ValueError(f"EMA: expected an optimizer of at most 2 state variables, got {self.optimizer} with 3")
        super().__post_init__()

    def __repr__(self) -> str:
        return f"EMA({self.optimizer}, decay={_show(self.decay)})"

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        """One state more, the average. Of a single state z: average' = (1 - decay) readout A z + decay average."""
        decay = (values or self.hyperparameters)["decay"]
        inner = self.optimizer.filter(values)
        k = len(inner.start)
        if _is_zero(decay):
            return inner
        fresh = two_sum(1.0, -np.asarray(decay))
        start = (*inner.start, float(inner.readout @ np.array(inner.start)))
        query = [*inner.query, 0.0]
        if k == 1:
            a, g = pair_of(inner.transition[..., :, 0, 0]), pair_of(inner.gain[..., :, 0])
            weight = pair_mul(fresh, (inner.readout[0], 0.0))
            transition = [[a, 0.0], [pair_mul(weight, a), decay]]
            return _filter(transition, [g, pair_mul(weight, g)], query=query, readout=[0.0, 1.0], start=start)
        rows = [[pair_of(inner.transition[..., :, i, j]) for j in range(2)] for i in range(2)]
        gain = [pair_of(inner.gain[..., :, i]) for i in range(2)]
        return _filter(
            [[*rows[0], 0.0], [*rows[1], 0.0], [0.0, 0.0, decay]],
            [*gain, 0.0],
            query=query,
            readout=[*inner.readout, 0.0],
            start=start,
            fresh=fresh,
            scaled=(*inner.scaled, 0),
        )

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> Any:
        return self.optimizer.stability_limit(values)


@dataclass(frozen=True, eq=False, repr=False)
class LinearOptimizer(Optimizer[Any]):
    """Bring your own filter: any optimizer that is linear in its state and takes one gradient a step.

        z' = transition z - lr gain g,   g = h (query . z) + noise,   theta = readout . z,   z = start theta_0

    Args:
        lr: learning rate > 0, number, array, :class:`nqm.Schedule` or ``nqm.FREE``. Changes of a schedule leave z as it
            is; a state that should follow the learning rate has to be written in units of it.
        transition: (k, k) matrix A, k = 1, 2 or 3.
        gain: (k,), how the gradient enters each state.
        query: (k,), where the gradient is taken; default: the first state.
        readout: (k,), the iterate whose risk is reported; default: the first state.
        start: (k,), the state before the first step in units of theta_0; default: 1 in the first state.

    Gradient descent with heavy-ball momentum 0.9, state (theta, velocity):

    >>> LinearOptimizer(0.1, transition=[[1, 0.9], [0, 0.9]], gain=[1, 1])
    LinearOptimizer(lr=0.1, k=2)
    """

    lr: Any
    transition: Any
    gain: Any
    query: Any = None
    readout: Any = None
    start: Any = None
    _limits: ClassVar[dict[str, dict[str, Any]]] = {"lr": {"low": 0.0}}

    def __post_init__(self) -> None:
        super().__post_init__()
        matrix = _checks.reals(self.transition, "transition")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 1 <= len(matrix) <= 3:
            raise ValueError(f"transition: expected a (k, k) matrix with k = 1, 2 or 3, got shape {matrix.shape}")
        first = np.eye(len(matrix))[0]
        for name in ("gain", "query", "readout", "start"):
            given = getattr(self, name)
            vector = first.copy() if given is None and name != "gain" else _checks.reals(given, name)
            if vector.shape != first.shape:
                raise ValueError(f"{name}: expected a vector of length {len(first)}, got shape {vector.shape}")
            vector.flags.writeable = False
            object.__setattr__(self, name, vector)
        matrix.flags.writeable = False
        object.__setattr__(self, "transition", matrix)

    def __repr__(self) -> str:
        return f"LinearOptimizer(lr={_show(self.lr)}, k={len(self.transition)})"

    @property
    def states(self) -> int:
        return len(self.transition)

    @property
    def noise_gain_grows(self) -> bool:
        return False

    def filter(self, values: Mapping[str, Any] | None = None) -> Filter:
        """As given; but where the readout of two states goes its own way (r^T M is a multiple of r^T), by itself.

        The kernels' coordinates for two states are r . z and how it changes, which would then be only one.
        """
        a, b, q, r, s = self.transition, self.gain, self.query, self.readout, self.start
        if len(a) == 2:
            image, taken = r @ a, float(r @ b)
            alone = image[0] * r[1] == image[1] * r[0] and taken * q[0] * r[1] == taken * q[1] * r[0]
            if alone and np.any(r):
                i = int(np.argmax(np.abs(r)))
                return _filter([[image[i] / r[i]]], [taken], [q[i] / r[i]], [1.0], (float(r @ s),))
        return _filter(a, b, q, r, tuple(float(x) for x in s))

    def stability_limit(self, values: Mapping[str, Any] | None = None) -> float:
        """Where the spectral radius of M(x) first reaches 1, found on a grid over 16 decades and by bisection."""
        if "_limit" not in self.__dict__:  # thousands of matrices
            object.__setattr__(self, "_limit", self._first_unstable())
        limit: float = self.__dict__["_limit"]
        return limit

    def _first_unstable(self) -> float:
        def stable(x: float) -> bool:
            return _spectral_radius(self.transition - x * np.outer(self.gain, self.query)) < 1.0

        grid = np.geomspace(1e-8, 1e8, 1601)
        unstable = next((i for i, x in enumerate(grid) if not stable(x)), None)
        if unstable is None:
            return float("inf")
        low, high = (grid[unstable - 1] if unstable else 0.0), grid[unstable]
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if stable(middle) else (low, middle)
        return float(low)

    def noise_gain(self, x: FloatArray, values: Mapping[str, Any] | None = None) -> FloatArray:
        """From S = M S M^T + gain gain^T, a linear system for each x."""
        k, points = len(self.transition), np.asarray(x, dtype=float)
        one = np.eye(k)
        forgets = (points > 0.0) & (points < self.stability_limit(values) * (1.0 - 1e-13))
        w = (self.transition - one) - points[..., None, None] * np.outer(self.gain, self.query)
        w = np.where(forgets[..., None, None], w, -one)
        # 1 - M x M, without rounding what is small
        lost = -(np.einsum("ij,...kl->...ikjl", one, w) + np.einsum("...ij,...kl->...ikjl", w, w + one))
        kick = np.broadcast_to(np.outer(self.gain, self.gain).reshape(-1, 1), (*points.shape, k * k, 1))
        moments = np.linalg.solve(lost.reshape(*points.shape, k * k, k * k), kick)
        read = np.outer(self.query, self.query).ravel()
        return np.where(forgets, points**2 * (moments[..., 0] @ read), np.inf)


def transition_matrix(optimizer: Optimizer, x: ArrayLike) -> FloatArray:
    """M(x) = A - x gain query^T, one step of ``optimizer`` on a coordinate with x = lr h^(1-p).

    ``x`` of shape X gives (*X, k, k), for an optimizer whose hyperparameters other than lr are plain numbers or
    broadcast with X. Its spectral radius is the factor by which the distance to the optimum shrinks a step.

    >>> transition_matrix(SGD(0.1, momentum=0.5), 0.25)
    array([[ 0.75,  0.5 ],
           [-0.25,  0.5 ]])
    """
    return step(optimizer, x)[0]


def step(optimizer: Optimizer, curvature: ArrayLike, lr: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """(M, b) of one step z' = M z - b eps for preconditioned curvatures h^(1-p): shapes (*X, k, k) and (*X, k).

    States that scale with lr are in units of lr, so that z goes on as it is when lr changes; at lr = 1 they are what
    they are anywhere, and M is that of x = h^(1-p).
    """
    parts = optimizer.filter({**optimizer.hyperparameters, "lr": 1.0})
    h = np.asarray(curvature, dtype=float)[..., None, None]
    scaled = np.array(parts.scaled)
    exponent = scaled - scaled[:, None]
    gain = parts.gain[..., 0, :]
    matrix = np.where(exponent < 0, 0.0, parts.transition[..., 0, :, :] * lr ** np.maximum(exponent, 0))
    matrix = matrix - h * (lr ** (1 + exponent) * gain[..., :, None] * parts.query)
    kick = lr ** (1 - scaled) * gain
    if len(parts.start) == 3 and np.any(parts.fresh):  # the average takes in what the others read out after the step
        weights = parts.fresh[..., 0, None] * parts.readout[:2]
        matrix[..., 2, :2] = np.einsum("...i,...ij->...j", weights, matrix[..., :2, :2])
        kick[..., 2] = np.sum(weights * kick[..., :2], axis=-1)
    return matrix, np.broadcast_to(kick, matrix.shape[:-1])


def _hyperparameter(value: Any, name: str, limits: dict[str, Any]) -> float | FloatArray | Schedule:
    if isinstance(value, Schedule):
        if name != "lr":
            raise TypeError(f"{name}: expected numbers, got {value}; only lr and batch_size can follow a schedule")
        return value
    array = _checks.reals(value, name, **limits)
    if array.ndim == 0:
        return float(array)
    array.flags.writeable = False
    return array


def _wraps(outer: Any, name: str) -> None:
    kind = type(outer).__name__
    _checks.instance(outer.optimizer, Optimizer, f"{kind}", "an optimizer such as nqm.SGD(0.1) as first argument")
    if name in outer.optimizer.hyperparameters:
        raise ValueError(f"{kind}: expected an optimizer without {name}, got {outer.optimizer}")


def _spectral_radius(matrix: FloatArray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def _is_zero(value: Any) -> bool:
    return value is not FREE and not np.any(value)


def _show(value: Any) -> str:
    if value is FREE:
        return repr(value)
    if isinstance(value, Schedule):
        return str(value)
    if isinstance(value, np.ndarray):
        return f"<array {value.shape}>"
    short = f"{value:.6g}"
    return repr(value) if value < 1.0 <= float(short) else short  # a momentum below 1 must not read as 1


@cache
def _plain() -> Filter:
    """z' = z - lr g."""
    return _filter([[1.0]], [1.0], query=[1.0], readout=[1.0], start=(1.0,))


def _filter(
    transition: Any,
    gain: Any,
    query: Any,
    readout: Any,
    start: tuple[float, ...],
    fresh: Any = 0.0,
    scaled: tuple[int, ...] | None = None,
) -> Filter:
    """Stack numbers, arrays and (high, low) pairs into the arrays of a :class:`Filter`."""
    k = len(start)
    entries = [transition[i][j] for i in range(k) for j in range(k)] + [*gain, fresh]
    parts = [part for entry in entries for part in (entry if isinstance(entry, tuple) else (entry,))]
    shapes = {part.shape for part in parts if isinstance(part, np.ndarray)}
    shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
    packed = np.zeros((*shape, 2, k * k + k + 1))
    for column, entry in enumerate(entries):
        if isinstance(entry, tuple):
            packed[..., 0, column], packed[..., 1, column] = entry
        else:
            packed[..., 0, column] = entry
    return Filter(
        packed[..., : k * k].reshape(*shape, 2, k, k),
        packed[..., k * k : -1],
        packed[..., -1],
        np.array(query, dtype=float),
        np.array(readout, dtype=float),
        start,
        scaled or (0,) * k,
    )
