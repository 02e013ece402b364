"""What a converted DICOM series is, whether it is a volume of a head, and its name, which holds nothing of a person.

Names are made of a number for the person, the series' number and one of a few known words for the contrast:
`sub-dcm001_ser-3_T2w`. Free text of a header is matched against these words, and no part of it is taken over.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preprocessing.nifti_file import open_nifti
from preprocessing.other_formats import BIDS_LABEL
from util.errors import UserError
from util.problems import Problem
from util.reading import read_bounded

MOST_BYTES = 2**26  # of a sidecar
FEWEST_SLICES = 5  # of a volume; localisers have fewer in a plane
UNKNOWN = "MR"  # a contrast that the header does not tell
LONG_TE_S = 0.04  # of PD and T2 in one series, the echo before this is PD
EQUALISED = re.compile(r"_Eq(_\d+)?$")  # what dcm2niix calls a copy that it resampled to equal distances
LOCALISER = re.compile(r"locali[sz]er|\bloc\b|scout|survey|smartbrain")
PARTS = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}  # of a complex image, besides its magnitude
CONTRASTS = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("ADC", r"\badc\b|apparent diffusion"),
        ("dwi", r"dwi|\bdti|diff|tracew"),
        ("bold", r"bold|fmri|\brest(ing)?\b"),
        ("asl", r"\basl\b|pcasl|perfusion"),
        ("swi", r"\bswi|\bswan\b|venobold"),
        ("angio", r"\btof\b|angio|\bmr[av]\b"),
        ("T1w", r"t1.*flair"),
        ("FLAIR", r"flair|dark ?fluid"),
        ("T2starw", r"t2 ?star|\bt2s\b|hemo\b|\bmedic\b"),
        ("STIR", r"\bstir\b"),
        ("PDw T2w", r"(pd|proton).*t2|t2.*(pd|proton)"),
        ("PDw", r"\bpd|proton"),
        ("T2w", r"t2"),
        ("T1w", r"t1|mp2?rage|mp rage|\bbravo\b|spgr|flash"),
    )
)


@dataclass(frozen=True)
class Series:
    """One converted series, or one echo of it.

    Attributes:
        nifti: the NIfTI file. place: the folder of the DICOM files. uid, study, patient: tell series, studies and
            people apart; they are never written. reason: why it cannot be used; empty if it can.
    """

    nifti: Path
    place: Path
    uid: str = field(repr=False)
    study: str = field(repr=False)
    patient: tuple[str, ...] = field(repr=False)
    number: int
    echo: int
    contrast: str
    image_type: tuple[str, ...]
    modality: str
    orientation: tuple[float, ...]
    n_slices: int
    n_volumes: int
    localiser: bool
    reason: str


def read_series(nifti: Path, place: Path) -> list[Series]:
    """The series that dcm2niix wrote as `nifti`; none if it is a resampled copy of another file.

    Raises: UserError naming the sidecar, if it cannot be read.
    """
    if EQUALISED.search(nifti.stem):
        return []
    header = _sidecar(nifti.with_suffix(".json"))
    uneven = any(EQUALISED.search(other.stem) for other in nifti.parent.glob(f"{nifti.stem}_Eq*.nii"))
    shape: tuple[int, ...] = ()
    reason = "the distance between its slices varies, so some may be missing" if uneven else ""
    try:
        opened = open_nifti(nifti)
        shape = opened.shape
        if not (opened.header["sform_code"] or opened.header["qform_code"]):
            reason = "its header does not tell where the slices lie"
    except UserError as error:
        reason = Problem.of(nifti, error).reason
    texts = [_words(header.get(name)) for name in ("SeriesDescription", "ProtocolName")]
    kinds = [kind for kind in (_contrast(text, header.get("EchoTime")) for text in texts) if kind]
    return [
        Series(
            nifti=nifti,
            place=place,
            uid=_text(header, "SeriesInstanceUID"),
            study=_text(header, "StudyInstanceUID"),
            patient=_patient(header),
            number=_whole(header.get("SeriesNumber")),
            echo=_whole(header.get("EchoNumber")) or 1,
            contrast=kinds[0] if kinds else UNKNOWN,
            image_type=_image_type(header, nifti),
            modality=_text(header, "Modality"),
            orientation=_orientation(header),
            n_slices=shape[2] if len(shape) > 2 else 1,
            n_volumes=shape[3] if len(shape) > 3 else 1,
            localiser=any(LOCALISER.search(text) for text in texts),
            reason=reason,
        )
    ]


def unsuited(series: Series, together: Sequence[Series]) -> str:
    """Why a series is left out; empty if it is a volume. together: all that its DICOM series became."""
    if series.modality not in ("", "MR"):
        return f"modality {series.modality[:2]}, not MR"
    if "SECONDARY" in series.image_type:
        return "derived from other images (secondary)"
    if "LOCALIZER" in series.image_type or series.localiser:
        return "a localiser"
    if len({other.orientation for other in together}) > 1:
        return "slices of several orientations, as of a localiser"
    if PARTS & {*series.image_type[2:]}:
        return "phase, real or imaginary part"
    if series.n_volumes > 1:
        return "several volumes in one series, as of diffusion or function"
    few = series.n_slices < FEWEST_SLICES and not series.reason
    return f"fewer than {FEWEST_SLICES} slices" if few else ""


@dataclass
class People:
    """Numbers people in the order in which they are met, and their studies; `sub-` and `ses-` folders name them."""

    _labels: dict[tuple[str, ...], str] = field(default_factory=dict)
    _numbered: int = 0

    def label(self, series: Series) -> tuple[str, str]:
        """The person's label, `sub-NAME` of a folder or `sub-dcmNNN`, and `ses-NAME` of a folder, empty without one."""
        known = {name[:3]: name for name in series.place.absolute().parts if BIDS_LABEL.fullmatch(name)}
        key = series.patient
        if not any(key):
            key = ("study", series.study) if series.study else ("folder", str(series.place))
        if "sub" in known:
            self._labels.setdefault(key, known["sub"])
            return known["sub"], known.get("ses", "")
        if key not in self._labels:
            self._numbered += 1
            self._labels[key] = f"sub-dcm{self._numbered:03}"
        return self._labels[key], known.get("ses", "")


def named(usable: Sequence[Series], people: People) -> dict[str, Series]:
    """The series by name, in the order given: person, session if there are several, series, echo, contrast."""
    labels = [people.label(one) for one in usable]
    studies: dict[str, dict[str, int]] = {}
    for one, (person, _) in zip(usable, labels, strict=True):
        of_person = studies.setdefault(person, {})
        of_person.setdefault(one.study, len(of_person) + 1)
    names: dict[str, Series] = {}
    for one, (person, session) in zip(usable, labels, strict=True):
        if not session and len(studies[person]) > 1:
            session = f"ses-{studies[person][one.study]}"
        echoes = {other.echo for other in usable if other.uid == one.uid}
        echo = f"echo-{one.echo}" if len(echoes) > 1 else ""
        start = "_".join(filter(None, (person, session, f"ser-{one.number}")))
        run = 1
        while (name := "_".join(filter(None, (start, f"run-{run}" * (run > 1), echo, one.contrast)))) in names:
            run += 1
        names[name] = one
    return names


def choose_series(known: Mapping[str, Series], given: str, contrast: str | None, choice: str) -> dict[str, Series]:
    """The series whose names end in `contrast`; all if it is None, which must then be of one kind.

    Raises: UserError: several kinds, or none of the one asked for. given: flag and location; choice: the option.
    """
    kinds = Counter(_kind(name, one) for name, one in known.items())
    listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(8))
    if contrast is None:
        if len(kinds) > 1:
            raise UserError(
                f"{given}: DICOM series of several kinds ({listed}), {choice} takes those whose names end in one"
            )
        return dict(known)
    chosen = {name: one for name, one in known.items() if f"_{name}".endswith(f"_{contrast}")}
    if known and not chosen:
        raise UserError(f"{choice} {contrast}: no DICOM series of {given} is named so (found: {listed})")
    return chosen


def _kind(name: str, series: Series) -> str:
    """What comes after the series' number; with the number if the contrast is unknown, for it may be any."""
    if series.contrast == UNKNOWN:
        return name[name.index("_ser-") + 1 :]
    ending = name[name.index("_ser-") + 1 :].split("_")[1:]
    return "_".join(part for part in ending if not part.startswith("run-"))


def _sidecar(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(read_bounded(path, MOST_BYTES).decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: what dcm2niix read of the header is not JSON") from error
    if not isinstance(header, dict):
        raise UserError(f"{path}: what dcm2niix read of the header is not JSON")
    return header


def _text(header: Mapping[str, Any], name: str) -> str:
    return str(header.get(name) or "").strip()


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0


def _patient(header: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells people apart: the patient's ID, else name and date of birth; empty strings if they are removed."""
    number = _text(header, "PatientID").casefold()
    return (number,) if number else (_text(header, "PatientName").casefold(), _text(header, "PatientBirthDate"))


def _image_type(header: Mapping[str, Any], nifti: Path) -> tuple[str, ...]:
    """The values of ImageType, and the part of a complex image that dcm2niix puts into a file's name."""
    values = header.get("ImageType")
    told = tuple(str(value).upper() for value in values) if isinstance(values, list) else ()
    ending = {"ph": "PHASE", "real": "REAL", "imaginary": "IMAGINARY"}
    parts = (ending[part] for part in nifti.stem.split("_")[1:] if part in ending)
    return (*told, *([""] * (2 - len(told))), *parts)


def _orientation(header: Mapping[str, Any]) -> tuple[float, ...]:
    values = header.get("ImageOrientationPatientDICOM")
    if not isinstance(values, list):
        return ()
    return tuple(round(float(value), 1) + 0.0 for value in values if isinstance(value, int | float))


def _words(text: object) -> str:
    """Lower case, `*` spelled out, everything but letters and digits a space."""
    return re.sub(r"[\W_]+", " ", str(text or "").lower().replace("*", " star "))


def _contrast(text: str, echo_s: object) -> str:
    """The contrast that a description tells, empty if none. echo_s: the echo time, where it tells two."""
    found = next((name for name, pattern in CONTRASTS if pattern.search(text)), "")
    if " " not in found:
        return found
    short = isinstance(echo_s, int | float) and echo_s < LONG_TE_S
    return found.split()[0 if short else 1]
