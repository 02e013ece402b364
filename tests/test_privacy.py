"""Nothing that a NIfTI file says of a person, besides its voxels' places, is in anything that we write."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import train_arguments

import preprocessing_images
import test as test_program
import train

CANARY = b"CANARY"  # every text field holds it
FIELDS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
SHAPE = (32, 32, 8)


def volume(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = (x / 0.7) ** 2 + (y / 0.8) ** 2 < 1
    return (inside * (500 + 200 * np.sin(4 * x + z) + 50 * z) + rng.random(SHAPE) * 20).astype(np.float32)


def write_marked(path: Path, seed: int) -> None:
    """A volume whose header, extensions and gzip header are full of canaries, in a folder whose name is one."""
    image = nibabel.Nifti1Image(volume(seed), np.diag([2.0, 2.0, 5.0, 1.0]))
    for code in ("comment", "afni", "dicom"):
        content = b"CANARY of Jane Doe" if code != "dicom" else _dicom()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, content))
    for field in FIELDS:
        image.header[field] = b"CANARY" + field.encode()[:3]
    image.header["regular"], image.header["slice_code"], image.header["slice_duration"] = b"r", 1, 77.25
    image.header["cal_max"], image.header["toffset"], image.header["intent_p1"] = 4321.5, 12.375, 3.625
    name = b"CANARY_Jane_Doe_1970.nii\0"
    packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    raw = image.to_bytes()
    assert raw.count(CANARY) >= len(FIELDS) + 2
    body = packed.compress(raw) + packed.flush()
    extra = b"CANARY of a scanner"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x1f\x8b\x08\x1c"  # with an extra field, a file name and a comment
        + struct.pack("<IBB", 1_234_567_890, 2, 3)
        + struct.pack("<H", len(extra))
        + extra
        + name
        + b"CANARY comment\0"
        + body
        + struct.pack("<II", zlib.crc32(raw), len(raw))
    )
    assert gzip.decompress(path.read_bytes()) == raw


def _dicom() -> bytes:
    """A patient's name as DICOM encodes it, explicit little-endian."""
    value = b"CANARY^JANE "
    return b"\x10\x00\x10\x00PN" + struct.pack("<H", len(value)) + value


def contents(path: Path) -> bytes:
    """What a file holds, as it is and decompressed, PNG texts included."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        return raw + gzip.decompress(raw)
    if raw.startswith(b"\x89PNG"):
        place, parts = 8, [raw]
        while place < len(raw):
            (length,) = struct.unpack_from(">I", raw, place)
            assert raw[place + 4 : place + 8] in (b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tEXt"), path
            parts.append(raw[place + 8 : place + 8 + length])
            place += length + 12
        return b"".join(parts)
    return raw


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder, the run and the results that come of marked volumes."""
    place = tmp_path_factory.mktemp("private")
    for domain, seeds in (("A", range(3)), ("B", range(3, 6))):
        for seed in seeds:
            write_marked(place / "CANARY_ward" / domain / f"case-{domain}{seed}.nii.gz", seed)
    sources = place / "CANARY_ward"
    out = place / "out"
    arguments = ["--input_A", sources / "A", "--input_B", sources / "B", "--out", out / "data", "--workers", 1]
    assert preprocessing_images.main(list(map(str, [*arguments, "--val_fraction", 0]))) == 0
    train.main(train_arguments(out / "data", out / "runs", "cycle_gan", "--name=run", "--n_epochs_decay=0", "--html"))
    test_program.main(
        [
            *(f"--dataroot={out / 'data'}", f"--checkpoints_dir={out / 'runs'}", f"--results_dir={out / 'results'}"),
            *("--name=run", "--gpu_ids=-1", "--no_baselines"),
        ]
    )
    return out


def test_no_output_holds_anything_of_the_header_or_the_gzip_header(outputs: Path) -> None:
    files = [path for path in outputs.rglob("*") if path.is_file()]
    kinds = {path.name.partition(".")[2] for path in files}
    assert {"png", "json", "csv", "html", "nii.gz", "pt", "pth"} <= kinds
    for path in files:
        content = contents(path)
        assert CANARY not in content and b"Jane" not in content, path
        assert "CANARY" not in str(path.relative_to(outputs))


def test_volumes_that_are_written_hold_geometry_alone(outputs: Path) -> None:
    paths = list(outputs.rglob("*.nii.gz"))
    assert paths
    for path in paths:
        raw = path.read_bytes()
        assert raw[:4] == b"\x1f\x8b\x08\x00", "no file name in the gzip header"
        assert struct.unpack_from("<I", raw, 4) == (0,), "nor a time"
        header = nibabel.load(path).header
        fresh = nibabel.Nifti1Header()
        geometry = {
            "dim",
            "datatype",
            "bitpix",
            "pixdim",
            "vox_offset",
            "xyzt_units",
            "scl_slope",
            "scl_inter",
            "magic",
        }
        geometry |= {"qform_code", "sform_code", "srow_x", "srow_y", "srow_z"}
        geometry |= {"quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"}
        assert header["descrip"] == b"SYNTHETIC research only"
        for name in set(fresh.keys()) - geometry - {"descrip"}:
            assert (header[name] == fresh[name]).all(), name
        assert not header.extensions


def test_weights_and_checkpoints_name_nobody(outputs: Path) -> None:
    weights = [path for path in outputs.rglob("*") if path.suffix in (".pt", ".pth", ".safetensors")]
    assert len(weights) >= 3
    for path in weights:
        assert b"case-" not in contents(path), path
    assert b"case-" in contents(outputs / "data/manifest.json")  # as docs/privacy.md warns
