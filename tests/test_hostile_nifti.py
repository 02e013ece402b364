"""NIfTI files that are damaged or lie: refused in one sentence, in seconds, in little memory; or read right."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nifti_bytes import AFFINE, SHAPE, encoded, head, with_nan

from data.folder.decoding import MAX_SIDE
from preprocessing.nifti import SIDE_MM, read_geometry, read_nifti
from preprocessing.nifti_file import MAX_OFFSET, MAX_VALUES, open_nifti
from simulation.label_maps import MAX_VOXELS, read_anatomy
from util.errors import UserError
from util.reading import MAX_JSON_BYTES, MAX_JSON_VALUES

ROOT = Path(__file__).resolve().parent.parent


def affine_fields(row: int, values: tuple[float, ...]) -> dict[str, object]:
    return {("srow_x", "srow_y", "srow_z")[row]: values}


def no_sform(**fields: object) -> bytes:
    return encoded(sform_code=0, **fields)


def pixdim(*sides: float) -> tuple[float, ...]:
    return (1, *sides, 1, 1, 1, 1)


TERABYTES = {"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1), "datatype": 64, "bitpix": 64}

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "2-D": (lambda: encoded(head()[:, :, 3]), "2-D"),
    "4-D": (lambda: encoded(np.stack([head(), head()], -1)), "4-D"),
    "no dimensions": (lambda: encoded(dim=(0, 20, 24, 6, 1, 1, 1, 1)), "0 dimensions"),
    "nine dimensions": (lambda: encoded(dim=(9, 20, 24, 6, 1, 1, 1, 1)), "9 dimensions"),
    "empty dimension": (lambda: encoded(dim=(3, 20, 0, 6, 1, 1, 1, 1)), "empty dimension"),
    "negative dimension": (lambda: encoded(dim=(3, 20, -24, 6, 1, 1, 1, 1)), "empty dimension"),
    "terabytes": (lambda: encoded(**TERABYTES)[:352], "voxels, at most"),
    "terabytes in 72 bytes": (lambda: encoded(**TERABYTES)[:72], "cannot be read as NIfTI"),
    "more than there is": (lambda: encoded(dim=(3, 400, 400, 400, 1, 1, 1, 1))[:500], "its header needs"),
    "compressed lie": (lambda: gzip.compress(encoded(dim=(3, 400, 400, 400, 1, 1, 1, 1))), "compressed bytes"),
    "truncated": (lambda: encoded()[:-1], "truncated"),
    "truncated gzip": (lambda: gzip.compress(encoded(), 0)[:-2000], "damaged"),
    "gzip without end": (lambda: gzip.compress(encoded())[:-4], "damaged"),
    "wrong checksum": (lambda: gzip.compress(encoded())[:-8] + bytes(8), "damaged"),
    "gzip of nothing": (lambda: gzip.compress(b""), "cannot be read as NIfTI"),
    "many empty gzip members": (lambda: gzip.compress(b"") * 200_000 + gzip.compress(encoded()), "cannot be read"),
    "gzip name without end": (lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 10**6, "cannot be read as NIfTI"),
    "NaN": (lambda: encoded(with_nan()), "NaN or infinite"),
    "infinite": (lambda: encoded(np.where(head() > 0, np.inf, 0).astype(np.float32)), "NaN or infinite"),
    "scaled to infinity": (lambda: encoded(scl_slope=3e38), "NaN or infinite"),
    "constant": (lambda: encoded(np.full(SHAPE, 7, np.float32)), "every voxel is 7"),
    "infinite slope": (lambda: encoded(scl_slope=np.inf), "scl_slope"),
    "infinite intercept": (lambda: encoded(scl_slope=1, scl_inter=np.inf), "intercept"),
    "NaN intercept": (lambda: encoded(scl_slope=1, scl_inter=np.nan), "intercept"),
    "singular affine": (lambda: encoded(**affine_fields(1, (2, 0, 0, 0))), "singular"),
    "affine of zeros": (lambda: encoded(srow_x=(0,) * 4, srow_y=(0,) * 4, srow_z=(0,) * 4), "singular"),
    "NaN affine": (lambda: encoded(**affine_fields(2, (0, 0, np.nan, 0))), "not finite"),
    "infinite origin": (lambda: encoded(**affine_fields(0, (2, 0, 0, np.inf))), "not finite"),
    "far away": (lambda: encoded(**affine_fields(0, (2, 0, 0, 1e30))), "e.30"),
    "huge voxels": (lambda: encoded(**affine_fields(2, (0, 0, 5000, 0))), "voxel sides of 2 x 2 x 5000"),
    "tiny voxels": (lambda: encoded(**affine_fields(2, (0, 0, 1e-9, 0))), "voxel sides of 2 x 2 x 1e-09"),
    "voxel side 0": (lambda: no_sform(pixdim=pixdim(2, 0, 5)), "voxel sides of 2 x 0 x 5"),
    "voxel side 1e30": (lambda: no_sform(pixdim=pixdim(1e30, 2, 5)), "e.30"),
    "negative voxel side": (lambda: no_sform(pixdim=pixdim(2, -2, 5)), "voxel sides of 2 x -2 x 5"),
    "NaN voxel side": (lambda: no_sform(pixdim=pixdim(2, 2, np.nan)), "voxel sides of 2 x 2 x nan"),
    "impossible quaternion": (lambda: no_sform(qform_code=1, quatern_b=4, quatern_c=4), "orientation"),
    "strange handedness": (lambda: no_sform(qform_code=1, pixdim=(7, 2, 2, 5, 1, 1, 1, 1)), "orientation"),
    "unknown sform code": (lambda: encoded(sform_code=77), "sform_code 77"),
    "negative qform code": (lambda: encoded(qform_code=-3), "qform_code -3"),
    "complex": (lambda: encoded(datatype=32, bitpix=64), "complex64"),
    "RGB": (lambda: encoded(datatype=128, bitpix=24), "need real numbers"),
    "long doubles": (lambda: encoded(datatype=1536, bitpix=128), "need real numbers of at most 64 bits"),
    "unknown type": (lambda: encoded(datatype=9999), "unusable header"),
    "voxels in the header": (lambda: encoded(vox_offset=100), "vox_offset 100"),
    "voxels before the file": (lambda: encoded(vox_offset=-4000), "vox_offset -4000"),
    "voxels beyond the file": (lambda: encoded(vox_offset=1e7), "its header needs"),
    "voxels at infinity": (lambda: encoded(vox_offset=np.inf), "vox_offset inf"),
    "voxels nowhere": (lambda: encoded(vox_offset=np.nan), "vox_offset nan"),
    "half of a pair": (lambda: encoded(magic=b"ni1\0"), "pair"),
    "Analyze": (
        lambda: nibabel.AnalyzeImage(head(), AFFINE).header.binaryblock + bytes(5000),
        "cannot be read as NIfTI",
    ),
    "MGH": (lambda: nibabel.MGHImage(head(), AFFINE).to_bytes(), "cannot be read as NIfTI"),
    "text": (lambda: b"not a volume\n" * 100, "cannot be read as NIfTI"),
    "nothing": (lambda: b"", "cannot be read as NIfTI"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    make, word = REFUSED[case]
    path = tmp_path / "bad.nii"
    path.write_bytes(make())
    started = time.process_time()
    with pytest.raises(UserError, match=word) as caught:
        read_nifti(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 400
    assert time.process_time() - started < 20  # of the processor, however busy the machine is


def big_endian() -> bytes:
    image = nibabel.Nifti1Image(head(), AFFINE, nibabel.Nifti1Header(endianness=">"))
    assert image.to_bytes()[:4] == struct.pack(">i", 348)
    return image.to_bytes()


def with_extension() -> bytes:
    """An extension that says it is 2 GB long: nobody reads it."""
    plain = encoded(vox_offset=400)
    return plain[:348] + bytes([1, 0, 0, 0]) + struct.pack("<ii", 2**31 - 1, 6) + bytes(40) + plain[352:]


def members(content: bytes) -> bytes:
    return b"".join(gzip.compress(content[start : start + 5000]) for start in range(0, len(content), 5000))


ACCEPTED: dict[str, Callable[[], bytes]] = {
    "plain": encoded,
    "compressed, called .nii": lambda: gzip.compress(encoded()),
    "compressed in members, as bgzip does": lambda: members(encoded()) + gzip.compress(b""),
    "more data than voxels": lambda: encoded() + b"x" * 10**6,
    "zeros after the compressed data": lambda: gzip.compress(encoded()) + bytes(512),
    "big-endian": big_endian,
    "NIfTI-2": lambda: nibabel.Nifti2Image(head(), AFFINE).to_bytes(),
    "fourth dimension of one": lambda: encoded(head()[..., None]),
    "slope NaN, which means not scaled": lambda: encoded(scl_slope=np.nan, scl_inter=np.nan),
    "slope 0, which means not scaled": lambda: encoded(scl_slope=0, scl_inter=np.inf),
    "voxel sizes that an sform overrules": lambda: encoded(pixdim=pixdim(np.nan, -1, 1e30)),
    "endless extension": with_extension,
    "scaled integers": lambda: encoded((head() / 2).astype(np.int16), scl_slope=2, scl_inter=0),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_files_are_read_right(tmp_path: Path, case: str) -> None:
    path = tmp_path / "good.nii"
    path.write_bytes(ACCEPTED[case]())
    volume, affine, geometry = read_nifti(path)
    assert volume.dtype == np.float32 and volume.shape == geometry.shape == SHAPE
    assert np.abs(volume - head()).max() <= (2 if "integers" in case else 0)
    assert (affine == AFFINE).all()


def test_agrees_with_nibabel_on_every_integer_and_float_type(tmp_path: Path) -> None:
    for dtype in ("i1", "u1", "<i2", ">i2", "u2", "i4", ">u4", "i8", "u8", "f4", ">f8"):
        image = nibabel.Nifti1Image(np.round(head() / 10).astype(dtype), AFFINE, dtype=dtype)
        image.header.set_slope_inter(0.5, -3)
        nibabel.save(image, tmp_path / "s.nii.gz")
        want = nibabel.load(tmp_path / "s.nii.gz").get_fdata()
        assert np.allclose(read_nifti(tmp_path / "s.nii.gz")[0], want, rtol=1e-6), dtype


def bomb(header: bytes, n_bytes: int) -> bytes:
    """`header`, then so many zeros, compressed a thousand times; gzip data may be put one after the other."""
    return gzip.compress(header) + gzip.compress(bytes(2**27)) * (n_bytes // 2**27)


READ_ONE = """
import resource, sys, time
from pathlib import Path
from preprocessing.nifti import read_nifti
from util.errors import UserError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
try:
    read_nifti(Path(sys.argv[1]))
except UserError as error:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{grown // 1024}|{time.process_time() - start}|{error}")
"""


@pytest.mark.parametrize(
    ("dim", "n_bytes", "word", "most_mb"),
    [
        ((3, 20, 24, 6), 2**31, "every voxel is 0", 20),  # 2 GB behind a small volume: not decompressed
        ((3, 1024, 1024, 1024), 2**31, "at most", 20),  # 2 GB that the header tells of: refused by it
        ((3, 512, 512, 255), 2**28, "every voxel is 0", 500),  # the largest volume that is read
    ],
)
def test_gzip_bombs_take_little_memory(
    tmp_path: Path, dim: tuple[int, ...], n_bytes: int, word: str, most_mb: int
) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(bomb(encoded(np.zeros(SHAPE, np.int16), dim=(*dim, 1, 1, 1, 1))[:352], n_bytes))
    assert path.stat().st_size < 2.2 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", READ_ONE, path], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    grown_mb, seconds, message = done.stdout.split("|", 2)
    assert word in message
    assert int(grown_mb) < most_mb and float(seconds) < 20


def test_a_header_alone_is_enough_to_refuse_what_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "s.nii"
    path.write_bytes(encoded(dim=(3, 512, 512, 257, 1, 1, 1, 1)))
    with pytest.raises(UserError, match=f"at most {MAX_VALUES} are allowed"):
        read_geometry(path)
    with pytest.raises(UserError, match="its header needs"):
        open_nifti(path, max_values=2**30)


def test_the_bounds_that_are_documented_are_those_of_the_code() -> None:
    table = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert MAX_VALUES == 512 * 512 * 256 == 2**26 and "2²⁶ voxels (512 x 512 x 256)" in table
    assert f"voxel sides from {SIDE_MM[0]:g} to {SIDE_MM[1]:g} mm" in table
    assert f"data at most {MAX_OFFSET // 2**20} MiB into the file" in table
    assert f"{MAX_VOXELS // 10**6} million voxels, or {2 * MAX_VOXELS // 10**6} million fractions" in table
    assert f"{MAX_SIDE} x {MAX_SIDE} pixels" in table
    assert f"{MAX_JSON_BYTES // 2**20} MiB, {MAX_JSON_VALUES // 10**6} million values" in table


@pytest.mark.parametrize("case", ["terabytes", "NaN", "NaN affine", "voxels nowhere", "Analyze", "truncated gzip"])
def test_a_head_for_the_simulator_is_read_as_carefully(tmp_path: Path, case: str) -> None:
    make, word = REFUSED[case]
    (tmp_path / "anatomy.nii").write_bytes(make())
    with pytest.raises(UserError, match=word):
        read_anatomy(tmp_path / "anatomy.nii")
