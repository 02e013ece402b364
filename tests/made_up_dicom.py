"""DICOM series of a made-up head, as a scanner or an archive would write them; pydicom writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, ENHANCED, REPORT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "4.1", "88.22"))
AXIAL = np.eye(3)
SHAPE, SPACING, ORIGIN = (44, 48, 10), (2.0, 2.0, 6.0), (-41.0, -52.0, -30.0)
NAME, NUMBER, BORN = "CANARY^JANE", "CANARY4711", "19700131"


@dataclass(frozen=True)
class Made:
    """The voxels that were written, and their affine in RAS mm."""

    voxels: NDArray[np.uint16]
    affine: NDArray[np.float64]

    def in_ras(self) -> nibabel.Nifti1Image:
        return nibabel.as_closest_canonical(nibabel.Nifti1Image(self.voxels, self.affine))


def oblique(degrees: float = 20.0) -> NDArray[np.float64]:
    """Directions of rows, columns and slices in LPS, the axial ones turned about two axes."""
    a, b = np.radians([degrees, degrees / 2])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_x @ about_z


def head(seed: int = 0, shape: Sequence[int] = SHAPE) -> NDArray[np.uint16]:
    """An ellipsoid of some contrast, without symmetry, in dark noise."""
    rng = np.random.default_rng(seed)
    x, y, z = np.mgrid[: shape[0], : shape[1], : shape[2]]
    n = np.asarray(shape) / 2
    inside = ((x - n[0]) / n[0] / 0.8) ** 2 + ((y - n[1]) / n[1] / 0.8) ** 2 + ((z - n[2]) / n[2]) ** 2 < 1
    values = np.where(inside, 400 + 200 * np.sin(x / 4 + y / 5 + seed) + 10 * z + x, 0) + rng.integers(0, 20, shape)
    return values.astype(np.uint16)


def write_series(
    folder: Path,
    *,
    number: int = 3,
    description: str = "t2_tse_tra",
    voxels: NDArray[np.uint16] | None = None,
    directions: NDArray[np.float64] = AXIAL,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = ORIGIN,
    names: str = "IM{:04}.dcm",
    series: str = "",
    study: str = "1",
    **fields: Any,
) -> Made:
    """Write a series, a file for each slice.

    Args: voxels: (columns, rows, slices). directions: (3, 3) in LPS. names: of files, by index. series, study: what
        makes their UIDs. fields: further elements by keyword, such as PatientID.
    """
    voxels = head() if voxels is None else voxels
    directions, spacing, origin = np.asarray(directions), np.asarray(spacing), np.asarray(origin)
    folder.mkdir(parents=True, exist_ok=True)
    patient = str(fields.get("PatientID", NUMBER))
    first = len(list(folder.iterdir()))
    for k in range(voxels.shape[2]):
        image = Dataset()
        _say_who(image, number, description)
        image.StudyInstanceUID = generate_uid(entropy_srcs=[patient, study])
        image.SeriesInstanceUID = generate_uid(entropy_srcs=[patient, study, str(number), series])
        image.SOPInstanceUID = generate_uid(entropy_srcs=[str(folder), names, str(number), str(k)])
        image.InstanceNumber, image.EchoTime, image.EchoNumbers = first + k + 1, 90, 1
        image.Columns, image.Rows = voxels.shape[:2]
        image.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        image.SliceThickness = image.SpacingBetweenSlices = float(spacing[2])
        image.ImageOrientationPatient = [f"{value:.9g}" for value in directions[:, :2].T.flat]
        image.ImagePositionPatient = [f"{value:.9g}" for value in origin + directions[:, 2] * spacing[2] * k]
        image.PixelData = np.ascontiguousarray(voxels[:, :, k].T.astype("<u2")).tobytes()
        for keyword, value in fields.items():
            setattr(image, keyword, value)
        _save(image, folder / names.format(k))
    return Made(voxels, _affine(directions, spacing, origin))


def _affine(directions: NDArray[np.float64], spacing: Sequence[float], origin: Sequence[float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * np.asarray(spacing), origin
    affine[:2] *= -1  # LPS to RAS
    return affine


def write_enhanced(path: Path, voxels: NDArray[np.uint16], directions: NDArray[np.float64]) -> Made:
    """A whole volume in one file of many frames, as newer scanners write it (Enhanced MR Image Storage)."""
    image, shared = Dataset(), Dataset()
    _say_who(image, 3, "t2_tse_tra")
    image.SOPClassUID = ENHANCED
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = (
        generate_uid(entropy_srcs=[part]) for part in ("study", "series", "image")
    )
    image.Columns, image.Rows, image.NumberOfFrames = voxels.shape
    plane, sizes = Dataset(), Dataset()
    plane.ImageOrientationPatient = [f"{value:.9g}" for value in directions[:, :2].T.flat]
    sizes.PixelSpacing = [SPACING[1], SPACING[0]]
    sizes.SliceThickness = sizes.SpacingBetweenSlices = SPACING[2]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [sizes]
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], []
    for k in range(voxels.shape[2]):
        frame, place, content = Dataset(), Dataset(), Dataset()
        position = np.asarray(ORIGIN) + directions[:, 2] * SPACING[2] * k
        place.ImagePositionPatient = [f"{value:.9g}" for value in position]
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", k + 1, [1, k + 1]
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
        image.PerFrameFunctionalGroupsSequence.append(frame)
    image.PixelData = np.ascontiguousarray(voxels.T.astype("<u2")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(image, path)
    return Made(voxels, _affine(directions, SPACING, ORIGIN))


def write_report(path: Path) -> None:
    """A structured report, which holds no image."""
    report = Dataset()
    _say_who(report, 99, "report")
    report.SOPClassUID, report.Modality = REPORT, "SR"
    report.SOPInstanceUID = report.StudyInstanceUID = report.SeriesInstanceUID = generate_uid(entropy_srcs=["report"])
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(report, path)


def _say_who(image: Dataset, number: int, description: str) -> None:
    image.PatientName, image.PatientID, image.PatientBirthDate = NAME, NUMBER, BORN
    image.ReferringPhysicianName = image.OperatorsName = NAME
    image.InstitutionName = image.PatientComments = image.AccessionNumber = "CANARY"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = "20200102"
    image.AcquisitionTime = "101010"
    image.Modality, image.Manufacturer, image.SOPClassUID = "MR", "Hyperfine", MR
    image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    image.SeriesNumber, image.SeriesDescription, image.ProtocolName = number, description, description
    image.AcquisitionNumber, image.RepetitionTime, image.MagneticFieldStrength = 1, 4000, 0.064
    image.MRAcquisitionType, image.ScanningSequence, image.PatientPosition = "2D", "SE", "HFS"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0


def _save(image: Dataset, path: Path) -> None:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(path, enforce_file_format=True)
