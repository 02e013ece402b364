"""Make a finished run a model that comes with the repository: `pretrained/NAME/`, for `test.py --pretrained NAME`.

python -m scripts.export_pretrained --run OUT/RUN --name NAME

takes the averaged G_AB of latest.pt in float16, the options that build it and prepare its slices, and the scale of the
slices that it learned from. Nothing that names a folder or machine of the training goes along. README.md, the model
card, is written by hand: it is kept, and the SHA-256 in it is replaced where it names one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from data.cache.place import check_name
from data.scale import as_json, trained_scales
from models.adversarial_options import SynthesisOptions
from models.networks.layers import count_parameters
from models.pretrained import NETWORK, SHA256, half_precision
from models.trained import SavedOptions, load_trained
from util.errors import UserError, run_cli
from util.files import replace_files
from util.runs import OPTIONS_NAME, PRETRAINED, RUN_INFO_NAME, WEIGHTS_NAME
from util.schema import CommandLine
from util.version import project_version

CARD_NAME = "README.md"
IN_CARD = re.compile(r"SHA-256 `[0-9a-f]{64}`")


def exported(run_dir: Path) -> dict[str, bytes]:
    """The files of the folder, but for the card. Raises: UserError: no run, or one that cannot be shipped."""
    model = load_trained(run_dir)
    if not model.can_synthesise:
        raise UserError(f"--run {run_dir}: a run of a pretext task, which synthesises nothing")
    weights = half_precision(model)
    kept = [field.name for schema in (SavedOptions, SynthesisOptions) for field in fields(schema)]
    options = {name: model.run[name] for name in dict.fromkeys([*kept, "image_size"])}
    about: dict[str, Any] = {
        SHA256: hashlib.sha256(weights).hexdigest(),
        "parameters": count_parameters(model.exported_networks()[NETWORK]),
        "version": project_version()[1],
        "exported": date.today().isoformat(),
        "slices": as_json(trained_scales(run_dir)),
    }
    return {WEIGHTS_NAME: weights, OPTIONS_NAME: _json(options), RUN_INFO_NAME: _json(about)}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write the folder. A card that is there names the new weights afterwards."""
    card = folder / CARD_NAME
    if card.is_file():
        sha256 = json.loads(files[RUN_INFO_NAME])[SHA256]
        files = {**files, CARD_NAME: IN_CARD.sub(f"SHA-256 `{sha256}`", card.read_text("utf-8")).encode()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_files({folder / name: partial(_put, content) for name, content in files.items()})
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error


def main(argv: Sequence[str]) -> int:
    """Read the command line and write the folder."""
    parser = CommandLine(prog="export_pretrained", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", required=True, type=Path, help="folder of the finished run, OUT/NAME of train.py")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--out", type=Path, default=PRETRAINED, help="folder of all such models; none: pretrained/")
    options = parser.parse_args(argv)
    check_name(options.name)
    files = exported(options.run)
    folder = options.out / options.name
    write(folder, files)
    card = "" if (folder / CARD_NAME).is_file() else f"; write its card, {folder / CARD_NAME}"
    print(f"{folder}: {len(files[WEIGHTS_NAME]) / 1e6:.2f} MB of weights{card}")
    return 0


if __name__ == "__main__":
    run_cli(main, "export_pretrained")
