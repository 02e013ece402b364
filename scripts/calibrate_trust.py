"""Fit the weights of `test.py --trust` to a run, on the validation people of a simulated folder.

python -m scripts.calibrate_trust --dataroot DATA --name NAME --checkpoints_dir OUT

takes the options of test.py, but for those that cannot matter here, and writes OUT/NAME/trust.json. Tests of that
checkpoint then use it, whatever their data.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import combinations
from pathlib import Path

import torch
from rich.progress import track

from data.folder.slice_folder import SliceFolder
from data.scale import check_like_training
from evaluation.people import people_in
from evaluation.predict import MirrorAverage, synthesise
from evaluation.provenance import sha256_of
from evaluation.subjects import positions_by_subject, read_subject
from evaluation.trust.calibration import FILE_NAME, FITTED, Calibration, Fit, fit_row, write_calibration
from evaluation.trust.maps import subject_patches
from evaluation.trust.patches import Patches
from evaluation.trust.signals import signals_of
from options.test_options import TestOptions, parse
from programs.testing import open_networks
from programs.trust import input_noise
from util.errors import UserError, printable, run_cli
from util.processes import ALONE, set_threads

PHASE = "val"


def fits_of(signals: Sequence[str], patches: Sequence[Patches]) -> list[Fit]:
    """Fits for the run's signals, and for each part of them: so the file can serve models that have fewer."""
    first, *others = signals
    parts = [(first, *some) for n in range(len(others) + 1) for some in combinations(others, n)]
    fits = [fit_row(row, part, patches) for row in FITTED if row != "appearance" for part in parts]
    return [*fits, fit_row("appearance", (), patches)]


def calibrate(options: TestOptions) -> Path:
    """Fit the weights and write them. Returns: the file.

    Raises: UserError: no validation slices or no truth of them, or too little to fit to.
    """
    opened = open_networks(options, ALONE)
    if not opened["model"].can_synthesise:
        raise UserError(f"--name {options.name}: a run of a pretext task, which synthesises nothing")
    model, grid, on, root = opened["model"], opened["grid"], opened["on"], Path(options.dataroot)
    domain = model.run["direction"][0]
    folder = SliceFolder(root, options.phase, domain)
    if folder.sibling("truth") is None:
        raise UserError(f"--dataroot {root}: no folder {options.phase}{domain}_truth in it; weights need the truth")
    check_like_training(options.run_dir, root, options.phase, domain)
    noise, subjects = input_noise(folder, grid), positions_by_subject(folder, options.num_test)
    used = MirrorAverage(model) if options.average_mirrored else model
    patches: list[Patches] = []
    for positions in track(subjects.values(), description="signals", transient=True):
        volume = read_subject(folder, positions, with_truth=True)
        fake_B = synthesise(used, volume, grid, on)
        found = subject_patches(model, volume, fake_B, grid, on, noise, options.seed)
        patches += [] if found is None else [found]
    calibration = Calibration(
        fits=fits_of(signals_of(model), patches),
        people=sorted({printable(person) for person in people_in(folder, subjects).values()}),
        n_subjects=len(patches),
        n_patches=sum(len(each.squared_error) for each in patches),
        run=printable(options.title),
        checkpoint_sha256=sha256_of(model.checkpoint),
        data=f"{options.phase}{domain} of {printable(root.name)}",
        date=date.today().isoformat(),
        average_mirrored=options.average_mirrored,
    )
    path = options.run_dir / FILE_NAME
    try:
        write_calibration(path, calibration)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def options_of(argv: Sequence[str]) -> TestOptions:
    """The command line, parsed.

    Raises: UserError: an option that asks for something else than weights from validation people.
    """
    options = parse(["--phase", PHASE, *argv])
    if options.phase != PHASE:
        raise UserError(f"--phase {options.phase}: the weights are fitted to validation people, --phase {PHASE}")
    if options.pretrained is not None:
        raise UserError(f"--pretrained {options.pretrained}: weights are fitted to a run, --name; it comes with others")
    if options.protocol is not None:
        raise UserError(f"--protocol {options.protocol}: scores of a test, on which no weight depends; leave it out")
    if options.trust:
        raise UserError("--trust does nothing here: it is what test.py makes of the weights; leave it out")
    return options


def main(argv: Sequence[str]) -> None:
    """Read the command line and fit."""
    options = options_of(argv)
    torch.manual_seed(options.seed)
    set_threads(ALONE, options.cpu_threads)
    print(f"weights of test.py --trust: {calibrate(options)}")


if __name__ == "__main__":
    run_cli(main, "calibrate_trust")
