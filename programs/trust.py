"""What `--trust` needs: the noise of the slices tested, and the weights of the run or those that are shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.folder.slice_folder import SliceFolder
from evaluation.predict import NetworkGrid
from evaluation.trust.calibration import FILE_NAME, SHIPPED, read_calibration
from evaluation.trust.maps import Trust
from evaluation.trust.signals import InputNoise, signals_of
from models.base_model import BaseModel
from training.low_field.noise import estimate_noise
from training.low_field.resolve import MOST_PIXELS, MOST_SLICES, TYPICAL
from util.errors import warn
from util.spread import evenly_spaced

CALIBRATE = "python -m scripts.calibrate_trust"


def input_noise(folder: SliceFolder, grid: NetworkGrid) -> InputNoise:
    """The noise in some slices of the commonest size, as --lf_noise auto estimates it; a usual value if it cannot."""
    shapes = [folder.pixels(i).shape for i in evenly_spaced(len(folder), MOST_SLICES)]
    shape = max(dict.fromkeys(shapes), key=shapes.count)
    most = max(1, min(MOST_SLICES, MOST_PIXELS // (shape[0] * shape[1])))
    alike = [i for i in evenly_spaced(len(folder), most) if folder.pixels(i).shape == shape]
    images, masks = np.stack([folder.image(i) for i in alike]), np.stack([folder.mask(i) for i in alike])
    found = estimate_noise(images, masks, preprocess=grid.preprocess, load_size=grid.load_size)
    if found is None:
        return InputNoise(float(TYPICAL["lf_noise"]), float(TYPICAL["lf_band"]))
    return InputNoise(round(min(found.deviation, 1.0), 3), round(min(found.band, 1.0), 3))


def open_trust(
    model: BaseModel,
    run_dir: Path,
    checkpoint_sha256: str,
    folder: SliceFolder,
    grid: NetworkGrid,
    *,
    average_mirrored: bool,
    seed: int,
) -> Trust:
    """The run's own weights if they were fitted to such syntheses of this checkpoint, else the shipped ones, as told.

    Raises: UserError: the run's trust.json cannot be read.
    """
    noise, own = input_noise(folder, grid), run_dir / FILE_NAME
    if own.is_file():
        calibration = read_calibration(own)
        usable = calibration.fit_of("trust", signals_of(model)) is not None
        alike = calibration.average_mirrored in (None, average_mirrored)
        if usable and alike and calibration.checkpoint_sha256 == checkpoint_sha256:
            source = f"weights fitted to this checkpoint on {', '.join(calibration.people)} of {calibration.data}"
            return Trust(calibration, noise, source, True, seed)
        how = CALIBRATE + " --average_mirrored" * average_mirrored
        what = (
            "the checkpoint tested" if alike else f"syntheses with{'out' * (not average_mirrored)} --average_mirrored"
        )
        warn(f"{own}: not of {what}, so the shipped weights are taken; {how} makes it anew")
    calibration = read_calibration(SHIPPED)
    source = (
        "shipped weights, fitted to another run on simulated heads: read the map as a ranking of places, not as the "
        f"size of their errors; {CALIBRATE} fits weights to this run"
    )
    return Trust(calibration, noise, source, False, seed)
