"""Results folders of tests that never ran: made-up slices, scores of them by the real measures, the real files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.evaluate import DEFINITIONS
from evaluation.page.sprites import Placing, script_name, write_sprites
from evaluation.paired import MEASURES, PairedTable, score
from evaluation.record import Record, write_csv, write_json
from evaluation.slice_scores import score_slices, write_slice_table
from evaluation.subjects import SubjectSlices

SIDE, N_SLICES = 24, 4


def made_up_subject(name: str, seed: int, n: int = N_SLICES) -> SubjectSlices:
    """A volume with its truth; the same for the same seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    mask = np.repeat((x**2 + y**2 < 0.16)[None], n, 0)
    truth = (mask * (0.3 + 0.4 * rng.random(mask.shape))).astype(np.float32)
    image = np.clip(truth + 0.1 * rng.normal(size=mask.shape), 0, 1).astype(np.float32)
    place = np.arange(n)
    stems = [f"{name}_{i:03d}" for i in range(n)]
    return SubjectSlices(name, stems, place, place.astype(np.float32), None, image, mask, truth, mask)


def write_results(
    folder: Path,
    people: Mapping[str, str],
    *,
    error: float,
    seeds: Sequence[int] | None = None,
    fingerprint: str = "f00d" * 16,
    run: str = "nowhere",
    with_truth: bool = True,
) -> Path:
    """Results whose synthesis has noise of size `error` (standard deviation) upon the truth.

    Args: people: the person of every subject. seeds: of each subject's slices; other seeds are other slices.
    """
    folder.mkdir(parents=True)
    rows: dict[str, dict] = {"fake_B": {}, "identity": {}}
    slices = {}
    for number, (subject, seed) in enumerate(zip(people, seeds or range(len(people)), strict=True), start=1):
        volume = made_up_subject(subject, seed)
        assert volume.truth is not None and volume.truth_mask is not None
        noise = np.random.default_rng(100 + seed).normal(size=volume.truth.shape)
        fake = np.clip(volume.truth + error * noise, 0, 1).astype(np.float32)
        kinds = {"real_A": volume.visible, "fake_B": fake, "truth": volume.truth}
        if with_truth:
            rows["fake_B"][subject] = score(fake, volume.truth, volume.truth_mask)
            rows["identity"][subject] = score(volume.visible, volume.truth, volume.truth_mask)
        else:
            del kinds["truth"]
            volume = SubjectSlices(**{**vars(volume), "truth": None, "truth_mask": None})
        slices[subject] = score_slices(volume, fake)
        write_sprites(folder, number, volume, kinds, slices[subject], Placing())
        assert (folder / script_name(number)).is_file()
    record, table = Record(), PairedTable(rows)
    record.put("provenance", "run", value=run)
    record.put("provenance", "epoch", value="latest")
    record.put("provenance", "data", value="DATA")
    record.put("provenance", "data_fingerprint", value=fingerprint)
    record.put("provenance", "command", value="python test.py --dataroot DATA")
    if with_truth:
        table.summarise(record, people)
    write_csv(folder / "metrics.csv", rows if with_truth else {}, MEASURES)
    write_slice_table(folder / "slices.csv", slices, people)
    write_json(folder / "metrics.json", record.as_json(DEFINITIONS))
    return folder
