"""Files of weights: written beside every checkpoint, read for pretext networks. Tensors only, never pickled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from util.errors import UserError
from util.files import Writer
from util.torch_file import read_torch, torch_writer

SUFFIXES = (".pth", ".safetensors")


def weights_name(epoch: str, network: str, suffix: str = SUFFIXES[0]) -> str:
    """File name of a network's weights in a run folder, such as `latest_net_G_AB.pth`."""
    return f"{epoch}_net_{network}{suffix}"


def weights_files(run_dir: Path) -> list[Path]:
    """All weights files in a run folder."""
    return [path for suffix in SUFFIXES for path in run_dir.glob(weights_name("*", "*", suffix))]


def weights_writers(
    run_dir: Path, epoch: str, networks: Mapping[str, nn.Module], checkpoint: str
) -> dict[Path, Writer]:
    """Writers, by path, of every network's weights in both formats.

    The safetensors files also name the SHA-256 of the `checkpoint` that they belong to.
    """
    writers: dict[Path, Writer] = {}
    for name, network in networks.items():
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        facts = {"format": "pt", "network": name, "checkpoint_sha256": checkpoint}
        pth, safe = (run_dir / weights_name(epoch, name, suffix) for suffix in SUFFIXES)
        writers[pth] = torch_writer(state)
        writers[safe] = lambda file, state=state, facts=facts: file.write(safetensors.torch.save(state, facts))  # type: ignore[misc]
    return writers


def find_weights(path: str, network: str) -> Path:
    """The weights file at `path`: the file itself, or the one of epoch `latest` in a run folder.

    Raises:
        UserError: there is none.
    """
    place = Path(path)
    file = place / weights_name("latest", network) if place.is_dir() else place
    if not file.is_file():
        kinds = " or ".join(SUFFIXES)
        raise UserError(f"--{network.lower()}_weights {path}: no file {file}, give a run folder or a {kinds} file")
    return file


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    return read_torch(file)[0]


def _refuse_other_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ValueError that tells the first difference between a network's tensors and those of a file."""
    if not isinstance(found, Mapping) or not set(found) & set(wanted):
        raise ValueError("none of its tensors")
    for name in dict.fromkeys([*wanted, *found]):
        here, there = (getattr(state.get(name), "shape", None) for state in (wanted, found))
        if here != there:
            told = f"{name} is {_sides(there)} there and {_sides(here)} here"
            raise ValueError(f"{told}; give the options that it was trained with")


def _sides(shape: Sequence[int] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "one number"


def load_weights(network: nn.Module, path: str, name: str) -> None:
    """Load weights into `network` from a run folder or from a .pth or .safetensors file.

    Raises:
        UserError: no such file, not a weights file, or weights of another architecture.
    """
    file = find_weights(path, name)
    try:
        state = _read(file)
        _refuse_other_shapes(network.state_dict(), state)
        network.load_state_dict(state)
    except Exception as error:  # both libraries raise many kinds of errors; each means that the file does not fit
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--{name.lower()}_weights {file}: not weights of this {name} network ({reason})") from error
