"""The expected error: a model of how large the squared error is where the features have given values.

    E[error^2] = exp(constant + sum of weight * term)

is fitted to patches of simulated validation people, of whom the truth is known, by the gamma likelihood: a weighted
fit of log-linear form to mean squares (McCullagh and Nelder 1989, chapter 8). A signal may only raise the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.record import write_json
from evaluation.trust.appearance import APPEARANCE
from evaluation.trust.patches import Patches
from evaluation.trust.signals import SIGNALS
from util.errors import UserError
from util.reading import read_structure

Floats = NDArray[np.floating]

FILE_NAME = "trust.json"  # in the run folder
SHIPPED = Path(__file__).with_name("shipped.json")
MOST_BYTES, MOST_VALUES = 1 << 20, 10_000
LEAST = 0.01  # added before a logarithm: smaller values of a feature are alike
LARGEST = 1.0  # of the expected squared error; the range is 1
CONSTANT, SQUARE = "constant", "brightness squared"
LOGARITHMIC = ("disagreement", "cycle", "edges")
RIDGE = 1e-3  # weight of the squared weights, against terms that tell the same
STEPS, CLOSE = 100, 1e-8  # of Newton's method
FITTED = ("trust", "signals", "appearance")  # rows that need a fit: everything, the signals alone, fake_B alone
FEWEST_PATCHES = 200


class Fit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of one fit. features: what it needs. weights: by term, see `terms`."""

    row: str
    features: list[str]
    weights: dict[str, float]


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fits, and what they were made from: people, number of subjects and patches, run, checkpoint, data and date.

    average_mirrored: whether the syntheses were those of --average_mirrored; None: an older file, which does not say.
    """

    fits: list[Fit]
    people: list[str]
    n_subjects: int
    n_patches: int
    run: str
    checkpoint_sha256: str
    data: str
    date: str
    average_mirrored: bool | None = None

    def fit_of(self, row: str, signals: Sequence[str]) -> Fit | None:
        """The fit of a row for a model with these signals; None if there is none."""
        wanted = set(needed(row, signals))
        return next((fit for fit in self.fits if fit.row == row and set(fit.features) == wanted), None)


def needed(row: str, signals: Sequence[str]) -> list[str]:
    """The features of a fitted row for a model with these signals."""
    return [*(signals if row != "appearance" else ()), *(APPEARANCE if row != "signals" else ())]


def terms(features: Mapping[str, Floats], names: Sequence[str]) -> dict[str, Floats]:
    """What the weights of the features `names` are of: logarithms, for brightness its square too."""
    found: dict[str, Floats] = {}
    for name in names:
        found[name] = np.log(np.maximum(features[name], 0) + LEAST) if name in LOGARITHMIC else features[name]
        if name == "brightness":
            found[SQUARE] = np.square(features[name])
    return found


def expected(features: Mapping[str, Floats], fit: Fit) -> Floats:
    """Expected squared error where the features, arrays of one shape, have their values: at most 1."""
    parts = terms(features, fit.features)
    total = fit.weights[CONSTANT] + sum(fit.weights[name] * values for name, values in parts.items())
    return np.exp(np.minimum(total, np.log(LARGEST)))


def fit_row(row: str, signals: Sequence[str], patches: Sequence[Patches]) -> Fit:
    """Fit one row to the patches of all subjects.

    Raises: UserError: too few patches, or none of them has an error.
    """
    names = needed(row, signals)
    error = np.concatenate([np.empty(0), *(each.squared_error for each in patches)])
    if len(error) < FEWEST_PATCHES or not error.mean() > 0:
        raise UserError(f"{len(error)} patches with {error.sum():.3g} squared error, need {FEWEST_PATCHES} with some")
    columns = terms({n: np.concatenate([each.features[n] for each in patches]) for n in names}, names)
    used = list(columns)
    while True:
        weights = _newton(np.array([columns[name] for name in used]).reshape(len(used), len(error)).T, error)
        against = [name for name, weight in zip(used, weights[1:], strict=True) if name in SIGNALS and weight < 0]
        if not against:
            break
        used = [name for name in used if name != against[0]]
    found = dict(zip(used, weights[1:].tolist(), strict=True))
    kept = {CONSTANT: float(weights[0]), **{name: found.get(name, 0.0) for name in columns}}
    return Fit(row, names, {name: float(f"{value:.5g}") for name, value in kept.items()})


def _newton(columns: Floats, error: Floats) -> Floats:
    """Weights (1 + terms,), the constant first, of the least mean(error / expected + log expected), which is convex."""
    whole = np.concatenate([np.ones((len(columns), 1)), columns], 1)
    ridge = RIDGE * np.append(0.0, np.ones(columns.shape[1]))

    def cost(weights: Floats) -> float:
        logs = whole @ weights
        return float(np.mean(error * np.exp(np.minimum(-logs, 100)) + logs) + (ridge * weights**2).sum() / 2)

    weights = np.append(np.log(error.mean()), np.zeros(columns.shape[1]))
    for _ in range(STEPS):
        ratio = error * np.exp(np.minimum(-whole @ weights, 100))
        slope = whole.T @ (1 - ratio) / len(error) + ridge * weights
        curvature = (whole * ratio[:, None]).T @ whole / len(error) + np.diag(ridge) + 1e-9 * np.eye(len(weights))
        step, now = np.linalg.solve(curvature, slope), cost(weights)
        while np.abs(step).max() >= CLOSE and cost(weights - step) > now:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < CLOSE:
            break
    return weights


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write the file of a run. Raises: OSError."""
    write_json(path, msgspec.to_builtins(calibration))


def read_calibration(path: Path) -> Calibration:
    """Raises: UserError naming the file: it cannot be read, or its weights are not those of its features."""
    found = read_structure(path, Calibration, most_bytes=MOST_BYTES, most_values=MOST_VALUES)
    for fit in found.fits:
        known = fit.row in FITTED and set(fit.features) <= {*SIGNALS, *APPEARANCE}
        squared = {SQUARE} if "brightness" in fit.features else set()
        if not known or set(fit.weights) != {CONSTANT, *fit.features, *squared}:
            raise UserError(f"{path}: the weights of '{fit.row[:40]}' do not fit its features; make the file anew")
    return found
