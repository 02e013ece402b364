"""What a result was made from: run, checkpoint, data, versions and command. It goes into everything a test writes."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from data.folder.slice_folder import READERS, SliceFolder
from evaluation.record import Record
from util.errors import UserError, printable
from util.version import project_version

if TYPE_CHECKING:
    from evaluation.folders import TestData

NOTICE = "for research only, not for diagnosis"
DESCRIP = b"SYNTHETIC research only"  # of a NIfTI header, which has room for 79 bytes
SHOWN = 12  # characters of a SHA-256 in a sentence


@dataclass(frozen=True)
class Provenance:
    """Entries of `metrics.json`'s `provenance`, of the report's head and of the JSON file beside each volume.

    synthetic: whether images were made. epoch: as given by --epoch. checkpoint: its file. data: the data folder.
    data_fingerprint: see `data_fingerprint`. date: when the test began. versions: of project, Python and torch.
    """

    synthetic: bool
    run: str
    epoch: str
    checkpoint: str
    checkpoint_sha256: str
    data: str
    date: str
    versions: dict[str, str]
    command: str
    data_fingerprint: str = ""
    notice: str = NOTICE

    def with_data(self, data: TestData) -> Provenance:
        """The same with the fingerprint of the data that the test reads."""
        return replace(self, data_fingerprint=data_fingerprint(data))

    def put_into(self, record: Record) -> None:
        """Write `provenance` into the record."""
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                for key, text in value.items():
                    record.put("provenance", name, key, value=text)
            else:
                record.put("provenance", name, value=value)

    def facts(self) -> dict[str, str]:
        """Rows for the head of the report."""
        return {
            "notice": ("SYNTHETIC images, " if self.synthetic else "") + self.notice,
            "checkpoint": f"{self.checkpoint}, SHA-256 {self.checkpoint_sha256}",
            "data fingerprint": self.data_fingerprint,
            "date": self.date,
            "versions": ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            "command": self.command,
        }

    def differs_from(self, earlier: dict[str, Any]) -> bool:
        """Whether `earlier`, the `provenance` of other results, is of other data, another epoch or another run.

        A run that was trained on is the same run: its newer checkpoint replaces what the older one made. Before the
        data were read, their folder alone is compared.
        """
        same = ["epoch", "data", *(["data_fingerprint"] if self.data_fingerprint else [])]
        runs = (earlier.get(name) != getattr(self, name) for name in ("run", "checkpoint_sha256"))
        return any(earlier.get(name) != getattr(self, name) for name in same) or all(runs)


def describe(provenance: dict[str, Any]) -> str:
    """For a sentence: run, epoch, checkpoint and data of results."""
    run, epoch, data = (str(provenance.get(name, "unknown")) for name in ("run", "epoch", "data"))
    checkpoint, content = (
        str(provenance.get(name) or "not read")[:SHOWN] for name in ("checkpoint_sha256", "data_fingerprint")
    )
    return f"run {run}, epoch {epoch} (checkpoint {checkpoint}) on {data} (content {content})"


def sha256_of(checkpoint: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises: UserError: it cannot be read."""
    try:
        with checkpoint.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{checkpoint}: cannot be read ({error.strerror})") from error


def make_provenance(
    *, run_dir: Path, epoch: str, checkpoint: Path, dataroot: Path, command: str, synthetic: bool
) -> Provenance:
    """Everything but the data's fingerprint. Raises: UserError: the checkpoint cannot be read."""
    sha256 = sha256_of(checkpoint)
    project, version = project_version()
    return Provenance(
        synthetic=synthetic,
        run=printable(str(run_dir)),
        epoch=epoch,
        checkpoint=printable(str(checkpoint)),
        checkpoint_sha256=sha256,
        data=printable(os.path.realpath(dataroot)),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions={
            project: version,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        command=printable(command),
    )


def data_fingerprint(data: TestData) -> str:
    """SHA-256 over names and bytes of the slices that a test reads, their files beside them, and their geometry."""
    digest = hashlib.sha256()
    for path in _files(data):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # a truth's mask may be missing
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        name = os.fsencode(path.parent.name), os.fsencode(path.name)
        digest.update(b"%s/%s:%d\n" % (*name, len(content)))
        digest.update(content)
    for subject in data.subjects:
        if subject in data.entries:
            digest.update(msgspec.json.encode(data.entries[subject]))
    return digest.hexdigest()


def _files(data: TestData) -> Iterator[Path]:
    used = [i for positions in data.subjects.values() for i in positions]
    yield from _of_folder(data.source, used)
    if data.target is not None:
        yield from _of_folder(data.target, list(range(len(data.target))))


def _of_folder(folder: SliceFolder, positions: list[int]) -> Iterator[Path]:
    kinds = [kind for kind in READERS if kind not in ("labels", "lesions")]  # no measure reads these
    groups = [folder.files, *(s.files for kind in kinds if (s := folder.sibling(kind)) is not None)]
    for files in groups:
        yield from (files[i] for i in positions)
