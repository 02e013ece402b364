"""The order of slices and their partners: the random choices of an epoch, drawn from (seed, stage, epoch).

They are drawn in the main process, and `Draws` hold all the randomness of their items. Workers, processes and restarts
therefore do not change what a run sees. An epoch of N items takes O(N log N) time and no Python object per item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from data.batch import BATCH, PAIR, PLACES, Pairs

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EVENING_ROUNDS = 20  # of A's slices that were left out, each gives a place to about half


@dataclass(frozen=True)
class Draws:
    """N items: two slices each, their relative levels, and the keys of their randomness.

    a, b: (N,) int64 positions in the dataset's slice lists. p_a, p_b: (N,) float32. key: (N,) int64, of all randomness
    but crop and flip. place_a, place_b: (N,) int64, the keys of crop and flip: slices of one key get the same.
    """

    a: Ints
    b: Ints
    p_a: Floats
    p_b: Floats
    key: Ints
    place_a: Ints
    place_b: Ints

    def __len__(self) -> int:
        return len(self.a)

    def rows(self, start: int, stop: int) -> Draws:
        """Items `start` to `stop`, `stop` excluded."""
        return Draws(**{field.name: getattr(self, field.name)[start:stop] for field in fields(self)})


@dataclass(frozen=True)
class Batches(Sequence[Draws]):
    """Draws split into batches of `size`; the last batch may be smaller."""

    draws: Draws
    size: int

    def __len__(self) -> int:
        return -(-len(self.draws) // self.size)

    @overload
    def __getitem__(self, i: int) -> Draws: ...
    @overload
    def __getitem__(self, i: slice) -> Batches: ...
    def __getitem__(self, i: int | slice) -> Draws | Batches:
        if isinstance(i, slice):
            start, stop, step = i.indices(len(self))
            if step != 1:
                raise ValueError(f"slice with step {step}, only step 1 is supported")
            return Batches(self.draws.rows(start * self.size, max(start, stop) * self.size), self.size)
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        start = i % len(self) * self.size
        return self.draws.rows(start, start + self.size)


def generator(seed: int, stage: str, epoch: int) -> np.random.Generator:
    """The random generator of one epoch of one stage."""
    return np.random.default_rng([seed, *stage.encode(), epoch])


def near_level(levels: Floats, wanted: Floats, tolerance: float, rng: np.random.Generator) -> Ints:
    """For each wanted level, a random position whose level lies within `tolerance`; the nearest one if none does.

    Args:
        levels: (M,) levels to choose from.
        wanted: (N,) levels to match.
        tolerance: half width in units of p (published: 0.03).

    Returns:
        (N,) int64 positions in `levels`.
    """
    order = np.argsort(levels, kind="stable")
    ordered = levels[order]
    low = np.searchsorted(ordered, wanted - tolerance, side="left")
    high = np.searchsorted(ordered, wanted + tolerance, side="right")
    inside = low + (rng.random(len(wanted)) * (high - low)).astype(np.int64)
    right = np.clip(np.searchsorted(ordered, wanted), 1, max(len(ordered) - 1, 1))
    left_nearer = wanted - ordered[right - 1] <= ordered[np.minimum(right, len(ordered) - 1)] - wanted
    nearest = np.where(left_nearer, right - 1, np.minimum(right, len(ordered) - 1))
    return order[np.where(high > low, inside, nearest)]


def shuffled_epoch(
    p_a: Floats,
    p_b: Floats,
    *,
    rng: np.random.Generator,
    tolerance: float,
    serial: bool = False,
    partners: Pairs | None = None,
) -> Draws:
    """One epoch of max(len A, len B) items; slices a in random order, or in file order if `serial`.

    The items are drawn from `partners` (SGP's pairs), see `paired_evenly`. Without them, every a gets a b among the
    slices of nearly the same level.
    """
    length = max(len(p_a), len(p_b))
    if partners is not None:
        a, b = paired_evenly(partners, len(p_a), length, rng)
        order = np.argsort(a, kind="stable") if serial else rng.permutation(length)
        return _draws(a[order], b[order], p_a, p_b, rng)
    rounds = -(-length // len(p_a))
    a = np.concatenate([np.arange(len(p_a)) if serial else rng.permutation(len(p_a)) for _ in range(rounds)])[:length]
    return _draws(a, near_level(p_b, p_a[a], tolerance, rng), p_a, p_b, rng)


def paired_epoch(p: Floats, *, rng: np.random.Generator, serial: bool = False) -> Draws:
    """One epoch of pairs that are known: item i of A with item i of B, in random order, or in file order if `serial`.

    Args: p: (N,) levels of both.
    """
    order = np.arange(len(p)) if serial else rng.permutation(len(p))
    return _draws(order, order, p, p, rng)


def paired_evenly(pairs: Pairs, n_a: int, length: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """`length` of the pairs, at least one for each b: every b equally often, up to one, and A as evenly as they allow.

    Each draw takes one of its b's pairs by their shares. Then an a that no draw has met takes the place of one that has
    several, beside a b that suits both.

    Returns: a, b: (length,) int64, ordered by b.
    """
    n_b = int(pairs.b[-1]) + 1
    b = ((np.arange(length) + rng.random()) * n_b / length).astype(np.int64)
    of_b = np.searchsorted(pairs.b, np.arange(n_b + 1))  # the first of each b's pairs
    reached = np.concatenate([[0.0], np.cumsum(pairs.share)])
    low, high = reached[of_b[b]], reached[of_b[b + 1]]
    drawn = np.searchsorted(reached, low + rng.random(length) * (high - low), side="right") - 1
    a = pairs.a[np.clip(drawn, of_b[b], of_b[b + 1] - 1)]  # rounding may lead to the next b's pairs
    items = np.searchsorted(b, np.arange(n_b + 1))  # the first of each b's draws
    for _ in range(EVENING_ROUNDS):
        counts = np.bincount(a, minlength=n_a)
        missing = rng.permutation(np.flatnonzero(counts[pairs.a] == 0))  # pairs of slices that no draw has met
        if not len(missing):
            break
        missing = missing[np.unique(pairs.a[missing], return_index=True)[1]]  # one for each of them
        beside = pairs.b[missing]
        item = items[beside] + (rng.random(len(beside)) * (items[beside + 1] - items[beside])).astype(np.int64)
        several = counts[a[item]] > 1
        missing, item = missing[several], item[several]
        once = np.unique(a[item], return_index=True)[1]  # a slice gives away one place at a time
        a[item[once]] = pairs.a[missing[once]]
    return a, b


def level_epoch(
    p_a: Floats,
    p_b: Floats,
    volumes_a: Ints,
    volumes_b: Ints,
    *,
    batch_size: int,
    rng: np.random.Generator,
    tolerance: float,
    crop: float,
) -> Draws:
    """Batches of distinct levels for SGP (docs/method.md section 1): one level from each of `batch_size` equal strata.

    Each volume is first cropped at random by up to `crop` of its extent per end, and its levels are rescaled to the
    rest. The error due to a volume's coverage thus differs between epochs and averages out.

    Args:
        p_a, p_b: (N,), (M,) levels.
        volumes_a, volumes_b: (N,), (M,) volume number of each slice.
    """
    cropped_a, cropped_b = _crop_levels(p_a, volumes_a, crop, rng), _crop_levels(p_b, volumes_b, crop, rng)
    kept_a, kept_b = np.flatnonzero(~np.isnan(cropped_a)), np.flatnonzero(~np.isnan(cropped_b))
    n_batches = -(-max(len(p_a), len(p_b)) // batch_size)
    strata = np.tile(np.arange(batch_size), n_batches)
    wanted = ((strata + rng.random(len(strata))) / batch_size).astype(np.float32)
    a = kept_a[near_level(cropped_a[kept_a], wanted, tolerance, rng)]
    b = kept_b[near_level(cropped_b[kept_b], cropped_a[a], tolerance, rng)]
    return _draws(a, b, cropped_a, cropped_b, rng)


def _crop_levels(p: Floats, volumes: Ints, crop: float, rng: np.random.Generator) -> Floats:
    """Levels relative to a random range of each volume; NaN outside the range."""
    low, high = rng.random((2, int(volumes.max()) + 1)) * crop
    rescaled = (p - low[volumes]) / (1 - low[volumes] - high[volumes])
    return np.where((rescaled >= 0) & (rescaled <= 1), rescaled, np.nan).astype(np.float32)


def _draws(a: Ints, b: Ints, p_a: Floats, p_b: Floats, rng: np.random.Generator) -> Draws:
    key, place_b = rng.integers(2**62, size=(2, len(a)))
    return Draws(a, b, p_a[a], p_b[b], key, key, place_b)


def at_places(draws: Draws, places: str, batch_size: int) -> Draws:
    """The draws with the crops and flips that `places`, one of PLACES, asks for."""
    if places not in PLACES:
        raise ValueError(f"places is {places!r}, allowed are {PLACES}")
    if places == PAIR:
        return replace(draws, place_b=draws.place_a)
    if places == BATCH:
        first = draws.place_a[np.arange(len(draws)) // batch_size * batch_size]
        return replace(draws, place_a=first, place_b=first)
    return draws
