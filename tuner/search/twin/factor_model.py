"""Measured over simulated values, learnt from trials: the error of the simulator, and the effects of other parameters.

A Gaussian process (Rasmussen & Williams, 2006) on the logarithm of measured over simulated values. Its covariance is
the sum of

- the simulator's error, which is similar for similar schedulings and loads,
- the effects of the parameters that the simulator does not model: the product of one factor for each of them, so that
  effects add up and interact (the ANOVA kernel of Stitson et al., 1999); they depend on how many instances are busy,
  and on their batches, since threads and instances share cores, and
- noise between launches, and between loads of a launch.

How large each effect and the noise are is not fitted but sampled (Gibbs), as few trials tell little of many parameters.
A sparse prior says that most have no effect, and that one may change all by a factor of 2 or more, more often for the
worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve_triangular

from tuner.search.twin.effects import Effects

# Standard deviations of logarithms that are considered, with their prior probabilities: the effect of a parameter,
# the simulator's error, noise between launches, and noise between loads, of throughput and of latency.
_EFFECTS = (0.02, 0.1, 0.3, 0.7), (0.6, 0.2, 0.14, 0.06)
_SIMULATOR = (0.05, 0.1, 0.2, 0.4), (0.2, 0.4, 0.3, 0.1)
_LAUNCH = (0.02, 0.04, 0.08, 0.15, 0.25), (0.15, 0.35, 0.25, 0.15, 0.1)
_LEVEL = (0.03, 0.06, 0.12, 0.25), (0.35, 0.35, 0.2, 0.1)
# Expected loss by a change of a parameter, over the size of its effect: the model's own values and defaults are mostly
# sound, so large effects are more often losses than gains.
_LOSS = 0.5
# Share of a parameter's effect that is the same whatever the scheduling and the load.
_EVERYWHERE = 0.85
SAMPLES = 16
"""Samples of the sizes of effects and noise."""
# Sweeps of the sampling that are skipped, and those between two samples.
_BURN_IN, _APART = 6, 2
# Most points to learn the sizes of effects from: the time grows with their third power.
_MOST_POINTS = 160


@dataclass(frozen=True)
class Points:
    """Candidates under loads.

    Attributes:
        places: (n, 6) coordinates of scheduling and load; see `place`.
        busy: (n, 2) coordinates of busy instances and their batches.
        owners: (n,) number of each point's row in `settings`.
        settings: (t, p) ladder indices of the parameters that are not simulated, by trial or candidate.
    """

    places: NDArray[np.float64]
    busy: NDArray[np.float64]
    owners: NDArray[np.int64]
    settings: NDArray[np.int64]

    def with_others(self, others: Points) -> Points:
        """These points, and others of further trials or candidates."""
        return Points(
            np.concatenate([self.places, others.places]),
            np.concatenate([self.busy, others.busy]),
            np.concatenate([self.owners, others.owners + len(self.settings)]),
            np.concatenate([self.settings, others.settings]),
        )


@dataclass(frozen=True)
class Factors:
    """The learnt quantities, by one sample of the sizes of effects and noise.

    Attributes:
        mean: (n, q) expected logarithms.
        deviation: (n, q) their standard deviations.
        effect: (n,) standard deviation of the logarithm that the parameters alone give, before any trial.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    effect: NDArray[np.float64]


@dataclass(frozen=True)
class _Sizes:
    """Standard deviations of logarithms: of each parameter's effect, and so on; see the module's constants."""

    effects: NDArray[np.float64]
    simulator: float
    launch: float
    levels: tuple[float, ...]


class FactorModel:
    """Gaussian processes of several quantities that depend alike on the parameters.

    Args:
        points: The n measured points.
        effects: The parameters that the simulator does not model.
        errors: (n, q) logarithms of measured over simulated values of q quantities.
        unsure: (n, q) standard deviations of these, by the intervals of the measurements.
        seed: The seed of the samples.
        better: For each quantity, 1 if larger values are better, -1 if smaller ones are; empty: neither is.
        together: (q, n, n) covariances of errors that points have in common, by the effects of hosts; None: none.
    """

    def __init__(
        self,
        points: Points,
        effects: Effects,
        errors: NDArray[np.float64],
        unsure: NDArray[np.float64],
        seed: int,
        *,
        better: Sequence[float] = (),
        together: NDArray[np.float64] | None = None,
    ) -> None:
        self._points, self._effects, self._unsure, self._together = points, effects, unsure, together
        self._better = np.array(better or [0.0] * errors.shape[1])
        kernel = _Kernel(points, points, effects)
        losses = self._losses(points)
        some = np.unique(np.linspace(0, len(errors) - 1, _MOST_POINTS).astype(int))
        gibbs = _Gibbs(
            kernel.among(some),
            errors[some],
            _Noise(np.square(unsure[some]), None if together is None else together[:, some[:, None], some]),
            losses[some],
            np.random.default_rng(seed),
        )
        noise = _Noise(np.square(unsure), together)
        self._fits = [_Fit.of(kernel, errors, noise, losses, sizes) for sizes in gibbs.samples(SAMPLES)]

    def believe(self, points: Points) -> None:
        """Count other points as measured, with just what is expected: means stay, deviations shrink."""
        count = len(points.owners)
        self._points = self._points.with_others(points)
        self._unsure = np.concatenate([self._unsure, np.tile(np.median(self._unsure, axis=0), (count, 1))])
        if self._together is not None:
            self._together = np.pad(self._together, ((0, 0), (0, count), (0, count)))
        kernel = _Kernel(self._points, self._points, self._effects)
        noise = _Noise(np.square(self._unsure), self._together)
        self._fits = [fit.believing(kernel, noise) for fit in self._fits]

    def at(self, points: Points) -> list[Factors]:
        """The factors of other points, for each sample."""
        across = _Kernel(points, self._points, self._effects)
        shares = self._effects.sizes(points.settings)
        losses = self._losses(points)
        return [fit.at(across, shares, points.owners, losses) for fit in self._fits]

    def _losses(self, points: Points) -> NDArray[np.float64]:
        """(n, q, p) expected logarithms for each unit of the sizes of the effects."""
        roots = np.sqrt(self._effects.sizes(points.settings)).T[points.owners]
        losses: NDArray[np.float64] = -_LOSS * self._better[:, None] * roots[:, None]
        return losses


class _Kernel:
    """The parts of the covariance of n points (rows) with m measured points (columns)."""

    def __init__(self, rows: Points, columns: Points, effects: Effects) -> None:
        self.simulator = _near(rows.places, columns.places)
        self.busy = _EVERYWHERE + (1 - _EVERYWHERE) * _near(rows.busy, columns.busy)
        self.correlations = effects.correlations(rows.settings, columns.settings)
        self.owners = rows.owners, columns.owners

    def among(self, some: NDArray[np.int64]) -> _Kernel:
        """Only some of the rows, and the same columns."""
        kernel = object.__new__(_Kernel)
        kernel.simulator, kernel.busy = self.simulator[np.ix_(some, some)], self.busy[np.ix_(some, some)]
        kernel.correlations = self.correlations
        kernel.owners = self.owners[0][some], self.owners[1][some]
        return kernel

    def covariance(self, sizes: _Sizes) -> NDArray[np.float64]:
        """Without noise."""
        return sizes.simulator**2 * self.simulator + self.of_effects(_product(self.correlations, sizes.effects))

    def of_effects(self, product: NDArray[np.float64]) -> NDArray[np.float64]:
        """The covariance of effects from the product of their factors, by trial."""
        covariance: NDArray[np.float64] = (product - 1)[self.owners[0][:, None], self.owners[1][None]] * self.busy
        return covariance

    @property
    def same_launch(self) -> NDArray[np.float64]:
        """1 where both points are of one launch."""
        same: NDArray[np.float64] = (self.owners[0][:, None] == self.owners[1][None]).astype(float)
        return same


@dataclass(frozen=True)
class _Noise:
    """The noise of measurements.

    Attributes:
        variances: (n, q) variances by the intervals of the measurements.
        together: (q, n, n) covariances of what points have in common; None: nothing.
    """

    variances: NDArray[np.float64]
    together: NDArray[np.float64] | None

    def add_to(self, covariance: NDArray[np.float64], column: int, level: float) -> None:
        """Add the noise of one quantity, whose standard deviation between loads is given, in place."""
        covariance.flat[:: len(covariance) + 1] += level**2 + self.variances[:, column]
        if self.together is not None:
            covariance += self.together[column]


@dataclass(frozen=True)
class _Fit:
    """The Gaussian processes for some sizes: the factors of their covariances, and the weights of the n points."""

    sizes: _Sizes
    factors: tuple[NDArray[np.float64], ...]
    weights: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(
        cls,
        kernel: _Kernel,
        errors: NDArray[np.float64],
        noise: _Noise,
        losses: NDArray[np.float64],
        sizes: _Sizes,
    ) -> _Fit:
        """Fit the points."""
        errors = errors - losses @ sizes.effects
        factors = _factored(kernel, noise, sizes)
        weights = (lapack.dpotrs(factor, errors[:, column], lower=1)[0] for column, factor in enumerate(factors))
        return cls(sizes, factors, tuple(weights))

    def believing(self, kernel: _Kernel, noise: _Noise) -> _Fit:
        """With more points at the end, whose errors are the expected ones, so that their weights are 0."""
        weights = (np.append(each, np.zeros(len(noise.variances) - len(each))) for each in self.weights)
        return _Fit(self.sizes, _factored(kernel, noise, self.sizes), tuple(weights))

    def at(
        self,
        across: _Kernel,
        shares: NDArray[np.float64],
        owners: NDArray[np.int64],
        losses: NDArray[np.float64],
    ) -> Factors:
        covariance = across.covariance(self.sizes)
        effect = np.prod(1 + np.square(self.sizes.effects)[:, None] * shares, axis=0)[owners] - 1
        prior = self.sizes.simulator**2 + effect
        means, deviations = [], []
        for factor, weights in zip(self.factors, self.weights, strict=True):
            explained = np.square(solve_triangular(factor, covariance.T, lower=True, check_finite=False)).sum(axis=0)
            means.append(covariance @ weights)
            deviations.append(np.sqrt(np.maximum(prior - explained, 0.0)))
        mean = np.stack(means, axis=1) + losses @ self.sizes.effects
        return Factors(mean, np.stack(deviations, axis=1), np.sqrt(np.maximum(effect, 0.0)))


def _factored(kernel: _Kernel, noise: _Noise, sizes: _Sizes) -> tuple[NDArray[np.float64], ...]:
    """The Cholesky factor of the points' covariance, for each quantity."""
    shared = kernel.covariance(sizes) + sizes.launch**2 * kernel.same_launch
    factors = []
    for column, level in enumerate(sizes.levels):
        noisy = shared.copy()
        noise.add_to(noisy, column, level)
        factors.append(lapack.dpotrf(noisy, lower=1, overwrite_a=1)[0])
    return tuple(factors)


class _Gibbs:
    """Samples sizes by their posterior probability, one after the other (Geman & Geman, 1984)."""

    def __init__(
        self,
        kernel: _Kernel,
        errors: NDArray[np.float64],
        noise: _Noise,
        losses: NDArray[np.float64],
        random: np.random.Generator,
    ) -> None:
        self._kernel, self._measured, self._noise, self._random = kernel, errors, noise, random
        self._losses, self._errors = losses, errors
        self._same_launch = kernel.same_launch
        self._effects = np.full(len(kernel.correlations), _EFFECTS[0][0])
        # No trial tells of the others.
        self._tried = [number for number, each in enumerate(kernel.correlations) if each.any()]
        self._simulator, self._launch, self._levels = _SIMULATOR[0][1], _LAUNCH[0][1], [_LEVEL[0][0]] * errors.shape[1]

    def samples(self, count: int) -> list[_Sizes]:
        """So many samples."""
        samples: list[_Sizes] = []
        prior = self._by_prior(count)
        for sweep in range(_BURN_IN + count * _APART):
            self._sweep()
            if sweep >= _BURN_IN and (sweep - _BURN_IN) % _APART == 0:
                effects = prior[len(samples)]
                effects[self._tried] = self._effects[self._tried]
                samples.append(_Sizes(effects, self._simulator, self._launch, tuple(self._levels)))
        return samples

    def _by_prior(self, count: int) -> NDArray[np.float64]:
        """(count, p) sizes of effects, of which each parameter has the shares of the prior, in random order."""
        middles = (np.arange(count) + 0.5) / count
        sizes = np.array(_EFFECTS[0])[np.searchsorted(np.cumsum(_EFFECTS[1]), middles)]
        return np.array([self._random.permutation(sizes) for _ in self._effects]).reshape(-1, count).T.copy()

    def _sweep(self) -> None:
        kernel = self._kernel
        product = _product(kernel.correlations, self._effects)
        rest = self._simulator**2 * kernel.simulator + self._launch**2 * self._same_launch
        for number in self._tried:
            correlation = kernel.correlations[number]
            others = product / (1 + self._effects[number] ** 2 * correlation)
            products = [others * (1 + size**2 * correlation) for size in _EFFECTS[0]]
            covariances = [rest + kernel.of_effects(each) for each in products]
            sizes = np.tile(self._effects, (len(products), 1))
            sizes[:, number] = _EFFECTS[0]
            chosen = self._draw(covariances, _EFFECTS[1], [self._measured - self._losses @ each for each in sizes])
            self._effects[number], product = _EFFECTS[0][chosen], products[chosen]
        self._errors = self._measured - self._losses @ self._effects
        effects = kernel.of_effects(product)
        rest = effects + self._launch**2 * self._same_launch
        chosen = self._draw([rest + size**2 * kernel.simulator for size in _SIMULATOR[0]], _SIMULATOR[1])
        self._simulator = _SIMULATOR[0][chosen]
        rest = effects + self._simulator**2 * kernel.simulator
        chosen = self._draw([rest + size**2 * self._same_launch for size in _LAUNCH[0]], _LAUNCH[1])
        self._launch = _LAUNCH[0][chosen]
        rest += self._launch**2 * self._same_launch
        for column in range(len(self._levels)):
            likelihoods = [self._likelihood(rest, self._errors, column, size) for size in _LEVEL[0]]
            self._levels[column] = _LEVEL[0][self._drawn(likelihoods, _LEVEL[1])]

    def _draw(
        self,
        covariances: list[NDArray[np.float64]],
        prior: tuple[float, ...],
        errors: list[NDArray[np.float64]] | None = None,
    ) -> int:
        """Draw one of several covariances; the quantities are looks at the same, so each counts in part."""
        columns = range(len(self._levels))
        errors = errors or [self._errors] * len(covariances)
        likelihoods = [
            sum(self._likelihood(covariance, off, column, self._levels[column]) for column in columns) / len(columns)
            for covariance, off in zip(covariances, errors, strict=True)
        ]
        return self._drawn(likelihoods, prior)

    def _drawn(self, likelihoods: list[float], prior: tuple[float, ...]) -> int:
        logs = np.array(likelihoods) + np.log(prior)
        # The largest of logarithms with Gumbel noise has the posterior probability.
        return int(np.argmax(logs + self._random.gumbel(size=len(logs))))

    def _likelihood(
        self, covariance: NDArray[np.float64], off: NDArray[np.float64], column: int, level: float
    ) -> float:
        errors = off[:, column]
        noisy = covariance.copy()
        self._noise.add_to(noisy, column, level)
        factor, _ = lapack.dpotrf(noisy, lower=1, overwrite_a=1)
        weights, _ = lapack.dpotrs(factor, errors, lower=1)
        return -0.5 * float(errors @ weights) - float(np.log(factor.flat[:: len(errors) + 1]).sum())


def _product(correlations: NDArray[np.float64], effects: NDArray[np.float64]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = np.prod(1 + np.square(effects)[:, None, None] * correlations, axis=0)
    return product


def _near(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = np.square(rows).sum(axis=1)[:, None] + np.square(columns).sum(axis=1)[None] - 2 * rows @ columns.T
    near: NDArray[np.float64] = np.exp(-0.5 * np.maximum(squares, 0.0))
    return near
