"""How much of the true error a trust map finds: per subject, then mean and interval over subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from evaluation.metrics.intervals import mean_interval95, why_no_interval
from evaluation.people import People
from evaluation.record import Record
from evaluation.slice_scores import SliceScores
from evaluation.trust.appearance import APPEARANCE
from evaluation.trust.calibration import FITTED, Calibration, expected
from evaluation.trust.patches import SIDE, Patches
from evaluation.trust.signals import PASSES, SIGNALS

Floats = NDArray[np.floating]

WORST = 0.1  # part of a subject's patches, those with the largest errors, that is to be found
ROWS = ("trust", *SIGNALS, "signals", *APPEARANCE, "appearance")
FEWEST_SLICES = 5  # for a rank correlation between slices
SLICE_TRUST = "slice_trust"
DEFINITIONS = {
    "trust": "where the synthesis may be wrong, told without a truth: the expected error, of the kind of psnr_fit's, "
    "sqrt(E[error^2]), a function of three signals of the model and of fake_B's brightness, edges and border, whose "
    f"weights were fitted on simulated people; disagreement: standard deviation over fake_B and {PASSES} "
    "syntheses of the mirrored, shifted (twice) and noisier input; cycle: local root mean square of a - G_BA(fake_B) "
    "without fine detail and receive field; sgp: 1 - cosine of SGP's embeddings of a and fake_B; signals: these three "
    "fitted alone; appearance: brightness, edges and border fitted alone",
    "trust.auc": f"probability that a patch among the {WORST:.0%} of a subject's patches with the largest true error "
    f"(root mean square after the affine fit of psnr_fit, patches of {SIDE}/128 of the longer side) has a higher value "
    "than one of the others; 0.5 is chance; mean over subjects",
    "trust.rank_correlation": "Spearman correlation between a value and the true error over a subject's patches; mean "
    "over subjects",
    "trust.slice_correlation": f"Spearman correlation between {SLICE_TRUST} and slice_psnr over a subject's slices; "
    "mean over subjects",
    "trust.bias_db": "dB; mean expected squared error over the true one, 0 is right, above 0 it expects too much; mean "
    "over subjects",
    SLICE_TRUST: "dB; the slice_psnr that the trust map expects, from its mean over the head; lower is less trusted "
    "(slices.csv)",
}
NOTHING = ("mean", "ci95")


@dataclass(frozen=True)
class TrustScores:
    """One subject's scores; what cannot be had is missing. auc, rank: by row."""

    auc: dict[str, float] = field(default_factory=dict)
    rank: dict[str, float] = field(default_factory=dict)
    slices: float | None = None
    bias_db: float | None = None


def auc(values: Floats, worst: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: how often one of `worst` has a higher value than one of the others, ties count half.

    Args: values, worst: (N,). Returns: None if there are none of either.
    """
    n, m = int(worst.sum()), int((~worst).sum())
    if not n or not m:
        return None
    return float((rankdata(values)[worst].sum() - n * (n + 1) / 2) / (n * m))


def rank_correlation(x: Floats, y: Floats) -> float | None:
    """Spearman's correlation; None where one of the two is constant or there are fewer than two numbers."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def values_of(patches: Patches, calibration: Calibration, signals: Sequence[str]) -> dict[str, Floats]:
    """What each row says of every patch (N,): the features as they are, and the fitted rows' expected error."""
    found = {name: patches.features[name] for name in ROWS if name in patches.features}
    for row in FITTED:
        fit = calibration.fit_of(row, signals)
        if fit is not None:
            found[row] = expected(patches.features, fit)
    return found


def score_trust(patches: Patches | None, values: Mapping[str, Floats], slices: SliceScores) -> TrustScores:
    """One subject's scores. values: see `values_of`; slices: with slice_trust and slice_psnr."""
    if patches is None:
        return TrustScores()
    error = patches.squared_error
    worst = error >= np.quantile(error, 1 - WORST)
    bias = None
    if "trust" in values and error.mean() > 0:
        bias = float(10 * np.log10(values["trust"].mean() / error.mean()))
    return TrustScores(
        _known({row: auc(value, worst) for row, value in values.items()}),
        _known({row: rank_correlation(value, error) for row, value in values.items()}),
        _between_slices(slices),
        bias,
    )


def _known(found: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in found.items() if value is not None}


def _between_slices(slices: SliceScores) -> float | None:
    pairs = zip(slices.values[SLICE_TRUST], slices.values["slice_psnr"], strict=True)
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if len(known) < FEWEST_SLICES:
        return None
    ours, theirs = np.array(known).T
    return rank_correlation(ours, theirs)


def put_scores(record: Record, found: Mapping[str, TrustScores], people: People, why: Mapping[str, str]) -> None:
    """Write the scores into `trust`. why: the reason for each row, or `all`, that is not scored."""
    for name, one in (("auc", "auc"), ("rank_correlation", "rank")):
        for row in ROWS:
            reason = why.get("all") or why.get(row)
            by_subject = {subject: getattr(scores, one) for subject, scores in found.items()}
            values = {subject: rows[row] for subject, rows in by_subject.items() if row in rows and not reason}
            _put(record, (name, row), values, people, reason)
    for name, one in (("slice_correlation", "slices"), ("bias_db", "bias_db")):
        reason = why.get("all") or why.get("trust")
        numbers = {s: value for s, scores in found.items() if (value := getattr(scores, one)) is not None}
        _put(record, (name,), {} if reason else numbers, people, reason)
    for subject, scores in found.items():
        for row, value in scores.auc.items():
            if not (why.get("all") or why.get(row)):
                record.put("trust", "subjects", subject, row, value=value)


def _put(
    record: Record, path: tuple[str, ...], values: Mapping[str, float], people: People, reason: str | None
) -> None:
    if not values:
        why = reason or "no subject has a head with errors that differ"
        record.null("trust", *path, leaves=NOTHING, why=why)
        return
    numbers, persons = list(values.values()), [people[subject] for subject in values]
    record.put("trust", *path, "mean", value=float(np.mean(numbers)))
    interval = mean_interval95(numbers, persons)
    if interval is None:
        record.null("trust", *path, "ci95", why=why_no_interval(len(numbers), len(set(persons))) or "")
    else:
        record.put("trust", *path, "ci95", value=list(interval))
