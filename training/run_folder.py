"""A run's folder: may it be used, what is in it, and the files that describe the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data.unaligned_dataset import UnalignedMaskDataset
from models.base_model import Stage
from options.train_options import RunOptions, differences
from util.checkpoint import OPTIONS_NAME, checkpoint_path, read_checkpoint
from util.errors import UserError
from util.files import replace_text


def open_run_folder(run: RunOptions, image_size: tuple[int, int], stages: Sequence[Stage]) -> dict[str, Any] | None:
    """Create the run folder, or take up the one that is there; returns the checkpoint to continue from, if asked for.

    `stages` are those that the run's model would go through now.

    Raises:
        UserError: nothing to continue; an earlier run would be lost; the continued run has other options.
    """
    folder, latest = run.run_dir, checkpoint_path(run.run_dir, "latest")
    wanted = _plain({**run.flat(), "image_size": list(image_size)})
    content = None
    if run.train.continue_train:
        if not latest.is_file():
            raise UserError(f"--continue_train: nothing to continue, {latest} does not exist")
        content = read_checkpoint(latest)
        changed = differences(json.loads((folder / OPTIONS_NAME).read_text(encoding="utf-8")), wanted)
        if changed:
            raise UserError(
                f"--continue_train: {folder} was trained with other options ({'; '.join(changed)}); "
                "repeat them, or give another --name"
            )
        reached = content["position"]["stage"]
        if reached >= len(stages) or stages[reached].epochs_before != content["epochs_before"]:
            raise UserError(
                "--continue_train: the run's last stage, refine, has begun; --n_epochs and --n_epochs_decay "
                "can no longer change, and --n_epochs_refine must be at least 1"
            )
    elif latest.exists() and not run.train.overwrite:
        raise UserError(
            f"--name {run.train.name}: {folder} holds a trained run; add --continue_train to go on with it, "
            "--overwrite to start afresh, or give another --name"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if content is None:
            for path in [*folder.glob("*.pt"), *folder.glob("*_net_*.pth")]:
                path.unlink()
        with replace_text(folder / OPTIONS_NAME) as file:
            json.dump(wanted, file, indent=1, sort_keys=True)
            file.write("\n")
    except OSError as error:
        raise UserError(
            f"--checkpoints_dir {run.train.checkpoints_dir}: cannot be written ({error.strerror})"
        ) from error
    return content


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON gives them back."""
    return json.loads(json.dumps(options))


def fingerprint(dataset: UnalignedMaskDataset) -> str:
    """SHA-256 over names and sizes of the training slices: tells data folders apart without reading them."""
    digest = hashlib.sha256()
    for folder in (dataset.A, dataset.B):
        for path in folder.files:
            digest.update(f"{folder.domain}/{path.name}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()
