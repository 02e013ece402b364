"""Recognise what is given in place of NIfTI volumes, and say in one sentence which tool or folder helps.

Files are told by their names' endings, and by their first bytes where the name says nothing or says NIfTI.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from util.errors import UserError
from util.reading import open_regular

NIFTI_SUFFIXES = (".nii.gz", ".nii")
MOST_ENTRIES = 5000  # files of a folder tree that are looked at
MOST_OPENED = 200  # and that are opened, as their names say nothing
HEAD_BYTES = 512
BIDS_LABEL = re.compile(r"(sub|ses)-[A-Za-z0-9]+")
BIDS_FOLDERS = ("anat", "func", "dwi", "fmap", "perf")
BIDS_OTHERS = ("derivatives", "sourcedata", "code")  # folders of a BIDS tree without scans as they were measured
SIMPLE_ITK = "import SimpleITK as s; s.WriteImage(s.ReadImage('{}'), 'NAME.nii.gz')"


@dataclass(frozen=True)
class Format:
    """A file format: its name, the endings of file names, and what to do with such files.

    In `advice`, {} stands for a file, and {folder} for the folder that was given.
    """

    name: str
    suffixes: tuple[str, ...]
    advice: str


FORMATS = (
    Format("DICOM", (".dcm", ".dicom", ".ima"), "convert them: dcm2niix -z y -o NIFTI {folder}"),
    Format("MGH/MGZ", (".mgz", ".mgh"), "convert each with FreeSurfer: mri_convert {} NAME.nii.gz"),
    Format(
        "HDF5",
        (".h5", ".hdf5", ".hdf"),
        "save their images as NIfTI; dataset/README.md, 'Public data sets', shows the lines for M4Raw and fastMRI",
    ),
    Format("NRRD", (".nrrd", ".nhdr"), f'convert each: python -c "{SIMPLE_ITK}"'),
    Format("MetaImage", (".mha", ".mhd"), f'convert each: python -c "{SIMPLE_ITK}"'),
    Format("NIfTI pair", (), "join header and data of each with FSL: fslchfiletype NIFTI_GZ {}"),
    Format(
        "Analyze",
        (".hdr", ".img"),
        "convert each: mri_convert {} NAME.nii.gz, and check left and right, which Analyze does not store",
    ),
    Format("MINC", (".mnc",), "convert each: mnc2nii {} NAME.nii"),
    Format("PAR/REC", (".par", ".rec"), "convert them: dcm2niix -z y -o NIFTI {folder}"),
    Format(
        "picture",
        (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy"),
        "slices that are made already need no preprocessing, see dataset/README.md, 'Slices made by hand'",
    ),
    Format("archive", (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"), "unpack it and give the folder"),
)
BY_NAME = {kind.name: kind for kind in FORMATS}
DICOM, HDF5, NRRD, META, PAIR, ANALYZE = (
    BY_NAME[name] for name in ("DICOM", "HDF5", "NRRD", "MetaImage", "NIfTI pair", "Analyze")
)
ANALYZE_SIZES = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")  # 348, the header's size


def format_of_content(path: Path) -> Format | None:
    """The format that a file's first bytes tell; None if they tell none of `FORMATS`, or it cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(HEAD_BYTES)
    except (OSError, UserError):
        return None
    if start[128:132] == b"DICM":
        return DICOM
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return HDF5
    if re.match(rb"NRRD000[0-9]", start):
        return NRRD
    if re.match(rb"(ObjectType|NDims)\s*=", start):
        return META
    if start.startswith(ANALYZE_SIZES) and len(start) >= 348:
        if start[344:348] == b"ni1\0":
            return PAIR
        return None if start[344:348] == b"n+1\0" else ANALYZE
    if start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return BY_NAME["picture"]
    return BY_NAME["archive"] if start.startswith(b"PK\x03\x04") else None


def format_of_name(path: Path) -> Format | None:
    """The format that a file's name tells; of `.hdr` and `.img` the header decides between NIfTI pair and Analyze."""
    name = path.name.lower()
    found = next((kind for kind in FORMATS if name.endswith(kind.suffixes)), None)
    if found is ANALYZE and format_of_content(path.with_suffix(".hdr")) is PAIR:
        return PAIR
    return DICOM if name == "dicomdir" else found


def ignored_files(others: Sequence[Path]) -> str:
    """The entries of a folder that are no volumes, counted by kind: `3 DICOM files, 2 .json files, 1 folder`."""
    counts = Counter(_kind(path, opened) for path, opened in zip(others, _may_open(others), strict=True))
    return ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.most_common())


def _kind(path: Path, may_open: bool) -> str:
    if path.is_dir():
        return "folder"
    found = format_of_name(path) or (format_of_content(path) if may_open else None)
    if found is not None:
        return f"{found.name} file"
    return f"{path.suffix.lower()} file" if path.suffix else "file without suffix"


def _may_open(paths: Sequence[Path]) -> Iterator[bool]:
    """For each path whether it may be opened to learn its format: the first `MOST_OPENED` whose names tell nothing."""
    opened = 0
    for path in paths:
        unknown = path.is_file() and format_of_name(path) is None
        opened += unknown
        yield unknown and opened <= MOST_OPENED


def _formats(paths: Sequence[Path]) -> Iterator[Format | None]:
    for path, may_open in zip(paths, _may_open(paths), strict=True):
        yield format_of_name(path) or (format_of_content(path) if may_open else None)


def holds_dicom(location: Path) -> bool:
    """Whether a file is DICOM, or a folder holds DICOM files and no NIfTI volumes, as far as is looked."""
    if not location.is_dir():
        return (
            location.exists() and not location.name.lower().endswith(NIFTI_SUFFIXES) and DICOM in _formats([location])
        )
    files = list(islice(walk(location), MOST_ENTRIES))
    return not any(path.name.lower().endswith(NIFTI_SUFFIXES) for path in files) and DICOM in _formats(files)


def mixed(volume: Path) -> str:
    """Why a folder of DICOM files and NIfTI volumes is refused."""
    return (
        f"DICOM files, and NIfTI volumes such as {volume}, which may show the same scans; give a folder of the one or "
        f"the other"
    )


def refuse_mixed(volumes: Iterable[Path], others: Sequence[Path], given: str) -> None:
    """Raise UserError naming `given` if DICOM files lie beside volumes."""
    for volume in islice(volumes, 1):
        if DICOM in _formats([path for path in others if not path.is_dir()]):
            raise UserError(f"{given}: {mixed(Path(volume.name))}")


def no_volumes(location: Path) -> str:
    """Why `location`, a file or a folder without NIfTI files, cannot be sliced, and what to do: one sentence."""
    if not location.is_dir():
        found = format_of_name(location) or format_of_content(location)
        if found is None:
            return "no .nii or .nii.gz file"
        return f"is {_article(found)} file, not NIfTI; {_advice(found, location, location.parent)}"
    files = list(islice(walk(location), MOST_ENTRIES))
    volumes = [path for path in files if path.name.lower().endswith(NIFTI_SUFFIXES)]
    if (location / "dataset_description.json").is_file() or any(_is_bids(path, location) for path in files):
        return _bids(location, volumes)
    if volumes and any(kind is DICOM for kind in _formats(files)):
        return mixed(volumes[0].relative_to(location))
    if volumes:
        folders = sorted({str(path.parent.relative_to(location)) for path in volumes})
        return (
            f"no .nii or .nii.gz file found in the folder itself, but {len(volumes)} in subfolders such as "
            f"{folders[0]}; give a single folder that holds all volumes (copies or links)"
        )
    counts: Counter[Format] = Counter()
    example: dict[Format, Path] = {}
    for path, found in zip(files, _formats(files), strict=True):
        if found is not None:
            counts[found] += 1
            example.setdefault(found, path)
    if not counts:
        return "no .nii or .nii.gz file found"
    (most, n), *rest = counts.most_common()
    beside = "".join(f", {m} {kind.name} file{'s' if m > 1 else ''}" for kind, m in rest)
    where = f"{n} {most.name} file{'s' if n > 1 else ''}{beside}"
    return f"no .nii or .nii.gz file found, but {where}; {_advice(most, example[most], location)}"


def wrongly_named(path: Path) -> str:
    """What a file that is named like NIfTI is instead, and what to do; empty if its content tells nothing."""
    found = format_of_content(path)
    return "" if found is None else f"is {_article(found)} file under a NIfTI name; {_advice(found, path, path.parent)}"


def _advice(kind: Format, path: Path, folder: Path) -> str:
    return kind.advice.format(path.name, folder=folder)


def _article(kind: Format) -> str:
    return f"{'an' if kind.name in ('MGH/MGZ', 'HDF5', 'NRRD', 'Analyze', 'archive') else 'a'} {kind.name}"


def walk(location: Path) -> Iterator[Path]:
    """The files below a folder, links to folders not followed, in the order of names; hidden ones left out."""
    for folder, below, names in os.walk(location):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _is_bids(path: Path, location: Path) -> bool:
    """Whether a file lies in a subject's folder of a BIDS tree, of which `location` may be any level."""
    folders = path.relative_to(location).parts[:-1]
    if location.name in BIDS_FOLDERS:
        return False
    return any(BIDS_LABEL.fullmatch(name) for name in (location.name, *folders)) and (
        folders[-1:] != () and folders[-1] in BIDS_FOLDERS
    )


def bids_volumes(location: Path) -> list[Path]:
    """The anatomical volumes of a BIDS tree, of which `location` is any level above theirs; empty if it is none."""
    if not location.is_dir():
        return []
    files = list(islice(walk(location), MOST_ENTRIES))
    volumes = [path for path in files if path.name.lower().endswith(NIFTI_SUFFIXES) and _is_bids(path, location)]
    measured = [path for path in volumes if not {*path.relative_to(location).parts} & {*BIDS_OTHERS}]
    return [path for path in measured if path.parent.name == "anat"]


def contrasts(volumes: Iterable[Path]) -> Counter[str]:
    """How many volumes have each contrast, by the ending of names as in BIDS: `sub-01_T2w.nii.gz` is a T2w."""
    return Counter(path.name.split(".")[0].rpartition("_")[2] for path in volumes)


def _bids(location: Path, volumes: Sequence[Path]) -> str:
    """A BIDS tree: volumes lie in a folder of each subject, and a flat folder of one contrast is needed."""
    if not volumes:
        return "is a BIDS folder without .nii or .nii.gz files; fetch or convert its images first"
    anatomical = [path for path in volumes if path.parent.name == "anat"] or list(volumes)
    known = contrasts(anatomical)
    pattern = "/".join(_star(part) for part in anatomical[0].relative_to(location).parts[:-1])
    contrast = known.most_common(1)[0][0]
    return (
        f"is a level of a BIDS folder, whose volumes lie deeper, such as {anatomical[0].relative_to(location)}; "
        f"copy one contrast into a flat folder and give that: "
        f"mkdir FLAT && cp {location}/{pattern}/*_{contrast}.nii* FLAT "
        f"(found: {', '.join(f'{n} {name}' for name, n in known.most_common(4))})"
    )


def _star(part: str) -> str:
    return f"{part[:3]}-*" if BIDS_LABEL.fullmatch(part) else part
