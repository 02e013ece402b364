"""preprocessing_images.py: geometry, splits, what is written and what is refused; small phantoms, real files."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_up_volumes import write_volumes
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray
from running import forked_from_a_server, run

import preprocessing_images
from data.folder.manifest import VolumeEntry, read_manifest
from data.folder.slices import read_image, read_mask, read_pixels
from preprocessing.geometry import SourceGeometry
from preprocessing.nifti import choose_slice_axis, read_nifti
from preprocessing.parallel import run_jobs
from preprocessing.reassembly import assemble
from preprocessing.slicing import Companions, relative_levels, write_volume
from preprocessing.splits import assign_splits
from util.errors import UserError

SHAPE = (28, 34, 6)
TILT = 0.1  # radians
AFFINE = np.array(
    [
        [2 * math.cos(TILT), -2 * math.sin(TILT), 0, -31],
        [2 * math.sin(TILT), 2 * math.cos(TILT), 0, -40],
        [0, 0, 6, -17],
        [0, 0, 0, 1],
    ]
)
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)), dtype=float)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def head(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    """A shaded ellipse on air in all slices but the first, RAS order, values up to about 1200."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    volume = ((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1) * (800 + 400 * x * y) + rng.random(shape) * 20
    volume[:, :, 0] = 0
    return volume.astype(np.float32)


def save(path: Path, volume: NDArray, affine: NDArray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    return path


def preprocess(*arguments: object) -> None:
    assert preprocessing_images.main([str(argument) for argument in (*arguments, "--workers", 1)]) == 0


def entries(dataroot: Path) -> list[VolumeEntry]:
    manifest = read_manifest(dataroot)
    assert manifest is not None
    return manifest.volumes


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of 5 low-field and 6 high-field volumes; s0 and s1 are in both."""
    for domain, own in (("A", ("a2", "a3", "a4")), ("B", ("b2", "b3", "b4", "b5"))):
        for seed, name in enumerate(("s0", "s1", *own)):
            save(tmp_path / domain / f"{name}.nii{'.gz' if seed % 2 else ''}", head(seed))
    return tmp_path / "A", tmp_path / "B"


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(f"{int(a)}{int(f):+}"[:2] for a, f in o))
def test_slices_of_any_orientation_assemble_to_the_source(tmp_path: Path, orientation: NDArray) -> None:
    image = nibabel.Nifti1Image(apply_orientation(head(), orientation), AFFINE @ inv_ornt_aff(orientation, SHAPE))
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine, 1)
    nibabel.save(image, tmp_path / "s.nii")
    preprocess("--input_A", tmp_path / "s.nii", "--all_test", "--out", tmp_path / "D")
    (entry,) = entries(tmp_path / "D")
    back = assemble(entry, {row.index: read_image(tmp_path / "D/testA" / row.file) for row in entry.slices})
    source = nibabel.load(tmp_path / "s.nii")
    assert entry.slice_axis == 2 and [row.index for row in entry.slices] == [1, 2, 3, 4, 5]
    assert back.shape == source.shape and back.get_data_dtype() == np.float32
    assert (back.affine == source.affine).all()
    assert (back.header["sform_code"], back.header["qform_code"]) == (4, 1)
    assert np.allclose(back.get_qform(), source.get_qform(), atol=1e-5)
    assert np.allclose(back.header.get_zooms(), source.header.get_zooms())
    window = np.clip((source.get_fdata() - entry.window[0]) / np.diff(entry.window), 0, 1)
    shown = apply_orientation(np.broadcast_to(np.arange(SHAPE[2]) > 0, SHAPE), orientation)
    assert np.abs(back.get_fdata() - window * shown).max() < 1e-4


@pytest.mark.parametrize(("sform_code", "qform_code"), [(0, 0), (0, 1), (2, 0), (1, 3)])
def test_header_codes_survive(tmp_path: Path, sform_code: int, qform_code: int) -> None:
    other = AFFINE.copy()
    other[:3, 3] += 5
    header = nibabel.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_qform(AFFINE, qform_code)
    if sform_code:
        header.set_sform(other, sform_code)
    nibabel.save(nibabel.Nifti1Image(head(), header.get_best_affine(), header), tmp_path / "s.nii")
    preprocess("--input_A", tmp_path / "s.nii", "--out", tmp_path / "D")
    (entry,) = entries(tmp_path / "D")
    source, back = nibabel.load(tmp_path / "s.nii"), assemble(entry, {})
    assert (back.header["sform_code"], back.header["qform_code"]) == (sform_code, qform_code)
    assert np.allclose(back.affine, source.affine, atol=1e-5)
    assert np.allclose(back.get_qform(), source.get_qform(), atol=1e-5)
    assert not back.get_fdata().any()


def test_assembly_refuses_slices_that_do_not_fit(tmp_path: Path) -> None:
    entry = write_head(tmp_path, head())
    for index, shape in ((6, (34, 28)), (-1, (34, 28)), (0, (28, 34))):
        with pytest.raises(ValueError, match="does not fit"):
            assemble(entry, {index: np.zeros(shape, dtype=np.float32)})


@pytest.mark.parametrize(
    ("shape", "spacing", "override", "axis"),
    [
        ((256, 256, 30), (1, 1, 5), "auto", 2),
        ((30, 256, 256), (5, 1, 1), "auto", 0),
        ((256, 40, 256), (0.9, 4.0, 0.9), "auto", 1),
        ((256, 256, 4), (1, 1, 1), "auto", 2),
        ((64, 256, 256), (1, 1, 1), "auto", 0),
        ((65, 256, 256), (1, 1, 1), "auto", 2),
        ((256, 50, 200), (1, 1.005, 1), "auto", 1),
        ((181, 217, 181), (1, 1, 1), "auto", 2),
        ((160, 256, 256), (1.2, 1, 1), "auto", 0),
        ((256, 256, 30), (1, 1, 5), "R", 0),
        ((256, 256, 30), (1, 1, 5), "A", 1),
    ],
)
def test_slice_axis(shape: tuple[int, ...], spacing: tuple[float, ...], override: str, axis: int) -> None:
    assert choose_slice_axis(shape, spacing, override) == axis


def test_levels_lie_between_the_outer_faces() -> None:
    assert relative_levels([4, 5, 6, 7]) == [0.125, 0.375, 0.625, 0.875]
    assert relative_levels([3]) == [0.5]
    assert relative_levels([0, 3]) == [0.125, 0.875]


def test_superior_slices_have_larger_levels_whatever_the_file_order(tmp_path: Path) -> None:
    volume = head()
    volume[:, :, 5] *= 0.5  # the most superior slice is the dim one
    flipped = np.array([[0, 1], [1, 1], [2, -1]])
    save(tmp_path / "s.nii", apply_orientation(volume, flipped), AFFINE @ inv_ornt_aff(flipped, SHAPE))
    preprocess("--input_A", tmp_path / "s.nii", "--out", tmp_path / "D")
    (entry,) = entries(tmp_path / "D")
    last = max(entry.slices, key=lambda row: row.p)
    means = {row.index: read_image(tmp_path / "D/trainA" / row.file).mean() for row in entry.slices}
    assert last.index == 5 and min(means, key=lambda index: means[index]) == 5


def test_splits_keep_subjects_apart_and_are_deterministic() -> None:
    subjects_A = {f"s{i}" for i in range(10)} | {f"a{i}" for i in range(20)}
    subjects_B = {f"s{i}" for i in range(10)} | {f"b{i}" for i in range(30)}
    kwargs = {"val_fraction": 0.1, "test_fraction": 0.2}
    splits = assign_splits(subjects_A, subjects_B, **kwargs, seed=3)
    assert splits.keys() == subjects_A | subjects_B
    for domain in (subjects_A, subjects_B):
        counts = [sum(splits[name] == split for name in domain) for split in ("train", "val", "test")]
        assert counts == [0.7 * len(domain), 0.1 * len(domain), 0.2 * len(domain)]
    assert splits == assign_splits(set(subjects_A), subjects_B, **kwargs, seed=3)
    assert splits != assign_splits(subjects_A, subjects_B, **kwargs, seed=4)
    assert set(assign_splits({"a", "b", "c"}, set(), **kwargs, seed=0).values()) == {"train", "val", "test"}
    assert set(assign_splits({"a", "b"}, set(), val_fraction=0, test_fraction=1, seed=0).values()) == {"test"}


def test_every_combination_of_fractions_gives_splits() -> None:
    tenths = [(val / 10, test / 10) for val in range(11) for test in range(11 - val)]
    for val, test in [*tenths, (0.25, 0.75), (1 / 3, 2 / 3), (0.001, 0.999), (0.45, 0.45)]:
        for n in range(12):
            names = {f"s{i:02d}" for i in range(n)}
            splits = assign_splits(names, set(), val_fraction=val, test_fraction=test, seed=0)
            assert splits.keys() == names
            wanted = {"val": val, "test": test, "train": max(1 - val - test, 0)}
            for split, fraction in wanted.items():
                count = list(splits.values()).count(split)
                assert count == 0 or fraction > 1e-9, f"{count} of {n} in {split}, of which nothing was asked for"
                assert count > 0 or fraction <= 1e-9 or n < 3, f"none of {n} in {split} at {val}, {test}"
                assert abs(count - n * fraction) <= 2
    halves = assign_splits({"a", "b", "c"}, set(), val_fraction=0.5, test_fraction=0.5, seed=0)
    assert sorted(halves.values()) == ["test", "test", "val"]


def test_halves_of_three_subjects_are_no_traceback(tmp_path: Path) -> None:
    given = [*write_volumes(tmp_path / "volumes"), "--val_fraction", ".5", "--test_fraction", ".5"]
    done = run("preprocessing_images.py", *given, "--out", tmp_path / "D", "--workers", 1)
    assert done.status == 0 and "Traceback" not in done.err
    assert not list(tmp_path.glob("D/train*/*"))


def test_data_folder(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    arguments = ("--input_A", inputs[0], "--input_B", inputs[1], "--val_fraction", 0.2, "--out")
    preprocess(*arguments, tmp_path / "D")
    volumes = entries(tmp_path / "D")
    assert sorted((v.subject, v.domain) for v in volumes) == sorted(
        (path.name.split(".")[0], folder.name) for folder in inputs for path in folder.iterdir()
    )
    assert len({(v.subject, v.split) for v in volumes}) == len({v.subject for v in volumes})
    assert {v.folder for v in volumes} >= {"trainA", "trainB", "valA", "valB", "testA", "testB"}
    for volume in volumes:
        for row in volume.slices:
            image = read_image(tmp_path / "D" / volume.folder / row.file)
            mask = read_mask(tmp_path / "D" / f"{volume.folder}_mask" / row.file)
            assert image.shape == mask.shape == (34, 34)
            assert read_pixels(tmp_path / "D" / volume.folder / row.file).dtype == np.uint16
            assert image[mask].mean() > 0.2 > image[~mask].mean()
    preprocess(*arguments, tmp_path / "again")
    assert files(tmp_path / "D") == files(tmp_path / "again")
    preprocess(*arguments, tmp_path / "D", "--seed", 1, "--overwrite", "--bits", 8)
    assert {(v.subject, v.split) for v in entries(tmp_path / "D")} != {(v.subject, v.split) for v in volumes}
    assert sum(path.endswith(".png") for path in files(tmp_path / "D")) == 2 * 11 * 5


def test_manifest_holds_nothing_of_the_header_but_geometry(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(head(), AFFINE)
    image.header["descrip"] = b"Jane Doe"
    image.header["aux_file"] = b"born 1970"
    image.header["db_name"] = b"ward 7"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    (tmp_path / "secret").mkdir()
    nibabel.save(image, tmp_path / "secret" / "s.nii.gz")
    preprocess("--input_A", tmp_path / "secret", "--out", tmp_path / "D")
    for content in files(tmp_path / "D").values():
        assert not any(word in content for word in (b"Jane", b"1970", b"ward", b"secret", str(tmp_path).encode()))
    assert json.loads((tmp_path / "D/manifest.json").read_text())["volumes"][0]["source"] == "s.nii.gz"


def write_head(dataroot: Path, volume: NDArray[np.float32], **more: object) -> VolumeEntry:
    return write_volume(
        dataroot,
        split="test",
        domain="A",
        subject="s 0",
        source="s 0.nii",
        volume=volume,
        affine_ras=AFFINE,
        geometry=SourceGeometry(SHAPE, AFFINE, AFFINE, None, 1, 0),
        slice_axis=2,
        bits=16,
        **more,  # type: ignore[arg-type]
    )


def test_truth_labels_and_levels_stand_beside_the_slices(tmp_path: Path) -> None:
    truth = head(1) * 3
    labels = (head() > 700).astype(np.uint8) * 4
    known = Companions(truth=truth, labels=labels)
    entry = write_head(tmp_path, head(), companions=known, level_mm=np.arange(6) * 5.0)
    assert [row.level_mm for row in entry.slices] == [5, 10, 15, 20, 25]
    assert entry.subject == "s-0" and entry.slices[0].file == "s-0_001.png"
    folders = {path.name for path in tmp_path.iterdir()}
    assert folders == {"testA", "testA_mask", "testA_truth", "testA_truth_mask", "testA_labels"}
    assert entry.truth_window is not None
    for row in entry.slices:
        low, high = entry.truth_window
        want = np.clip((np.flipud(truth[:, :, row.index].T) - low) / (high - low), 0, 1)
        assert np.allclose(read_image(tmp_path / "testA_truth" / row.file), want, atol=1e-4)
        assert (read_pixels(tmp_path / "testA_labels" / row.file) == np.flipud(labels[:, :, row.index].T)).all()


def test_paired_truth_from_the_command_line(tmp_path: Path) -> None:
    save(tmp_path / "A/s.nii", head())
    flipped = np.array([[0, -1], [2, 1], [1, 1]])
    save(tmp_path / "T/s.nii.gz", apply_orientation(head(1), flipped), AFFINE @ inv_ornt_aff(flipped, SHAPE))
    preprocess("--input_A", tmp_path / "A", "--truth_A", tmp_path / "T", "--all_test", "--out", tmp_path / "D")
    assert {path.name for path in (tmp_path / "D/testA_truth").iterdir()} == {
        path.name for path in (tmp_path / "D/testA").iterdir()
    }


def test_a_fourth_dimension_of_one_is_dropped(tmp_path: Path) -> None:
    save(tmp_path / "s.nii", head()[..., None])
    volume, _, geometry = read_nifti(tmp_path / "s.nii")
    assert volume.shape == geometry.shape == SHAPE


def _bad_volume(kind: str, folder: Path) -> Path:
    """A NIfTI file with one fault."""
    volume: NDArray = head()
    affine = AFFINE.copy()
    path = folder / "bad.nii.gz"
    if kind == "4-D":
        volume = np.stack([volume, volume], axis=-1)
    elif kind == "2-D":
        volume = volume[:, :, 3]
    elif kind == "NaN":
        volume[3, 3, 3] = np.nan
    elif kind == "every voxel":
        volume[:] = 7
    elif kind == "singular":
        affine[:3, 2] = affine[:3, 1]
    elif kind == "real numbers":
        volume = volume.astype(np.complex64)
    elif kind == "no foreground":
        volume = np.zeros((3, 3, 2), dtype=np.float32)
        volume[1, 1] = 0.5, 1
    save(path, volume, affine)
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "cannot be read as NIfTI":
        path.write_bytes(b"not a volume")
    return path


BAD_KINDS = ["4-D", "2-D", "NaN", "every voxel", "singular", "real numbers", "no foreground", "damaged"]


@pytest.mark.parametrize("kind", [*BAD_KINDS, "cannot be read as NIfTI"])
def test_bad_volumes_are_refused_by_name_and_leave_nothing(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "A/good.nii", head())
    bad = _bad_volume(kind, tmp_path / "A")
    with pytest.raises(UserError, match=kind) as caught:
        preprocess("--input_A", tmp_path / "A", "--out", tmp_path / "D")
    assert bad.name in str(caught.value) and "\n" not in str(caught.value)
    assert not files(tmp_path / "D")


def test_an_empty_dimension_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "s.nii", head())
    content = bytearray(path.read_bytes())
    content[46:48] = (0).to_bytes(2, "little")  # dim[3] of the header
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"s\.nii"):
        preprocess("--input_A", path, "--out", tmp_path / "D")


def _bad_commands(folder: Path) -> list[tuple[list[object], str]]:
    """Arguments and a part of the message they must cause."""
    (folder / "empty").mkdir()
    for name in ("x.nii", "x.nii.gz"):
        save(folder / "twice" / name, head())
    for name in ("a b.nii", "a-b.nii"):
        save(folder / "alike" / name, head())
    a = save(folder / "A/s.nii", head())
    save(folder / "small/s.nii", head()[:20])
    save(folder / "moved/s.nii", head(), AFFINE + np.outer([5, 0, 0, 0], [0, 0, 0, 1]))
    save(folder / "stranger/t.nii", head())
    save(folder / "both/t.nii", head())
    for name in ("t.nii", "u.nii"):
        save(folder / "alone" / name, head())
    out = ["--out", folder / "D"]
    return [
        (["--input_A", folder / "absent", *out], "does not exist"),
        (["--input_A", folder / "empty", *out], "no .nii"),
        (["--input_A", folder / "twice", *out], "same subject"),
        (["--input_A", folder / "alike", *out], "same subject"),
        (["--input_A", a, "--truth_A", folder / "small", *out], "must be equal"),
        (["--input_A", a, "--truth_A", folder / "moved", *out], "displaced by 5.0 mm"),
        (["--input_A", folder / "both", "--truth_A", folder / "alone", *out], "no usable volume of this name"),
        (["--input_A", folder / "alone", "--truth_A", folder / "stranger", *out], "--truth_A has no usable volume"),
        (["--truth_A", a, "--input_B", a, *out], "--truth_A needs --input_A"),
        (["--input_A", a, "--input_B", folder / "A" / ".." / "A" / "s.nii", *out], "and --input_B: both name"),
        (["--input_A", folder / "both", "--input_B", folder / "both" / "t.nii", *out], "--input_B: both name"),
        (["--input_A", a], "--out"),
        (out, "--simulate"),
        (["--input_A", a, "--simulate", *out], "--input_A"),
        (["--input_A", a, "--matrix", 64, *out], "--matrix"),
        (["--input_A", a, "--val_fraction", 0.6, "--test_fraction", 0.6, *out], "more than 1"),
        (["--input_A", a, "--val_fraction", "nan", *out], "--val_fraction"),
        (["--input_A", a, "--window_low", 60, "--window_high", 40, *out], "--window_low"),
        (["--input_A", a, "--out", folder / "A"], "not empty"),
        (["--input_A", a, "--out", a], "is a file"),
    ]


def test_bad_commands_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for arguments, part in _bad_commands(tmp_path):
        with pytest.raises(UserError) as caught:
            preprocess(*arguments)
        assert part in str(caught.value) and "\n" not in str(caught.value), arguments
        assert not (tmp_path / "D").exists()


@pytest.mark.parametrize(
    "arguments", [["--inpu", "x"], ["--bits", "12"], ["--simulate", "nonsense"], ["--seed", "one"]]
)
def test_wrong_options_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        preprocessing_images.main([*arguments, "--out", "x"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_hand_made_slices_and_other_files_are_never_overwritten(tmp_path: Path) -> None:
    save(tmp_path / "A/s.nii", head())
    arguments = ("--input_A", tmp_path / "A", "--out", tmp_path / "D", "--overwrite")
    preprocess(*arguments)
    (tmp_path / "D" / "notes.txt").write_text("mine")
    preprocess(*arguments)
    assert (tmp_path / "D" / "notes.txt").read_text() == "mine"
    (tmp_path / "D" / "manifest.json").unlink()
    before = files(tmp_path / "D")
    with pytest.raises(UserError, match="made by hand"):
        preprocess(*arguments)
    assert files(tmp_path / "D") == before


def test_jobs_keep_their_order_and_pass_errors_on_in_one_or_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    context = forked_from_a_server()
    monkeypatch.setattr("preprocessing.parallel.multiprocessing.get_context", lambda method: context)  # starts at once
    for workers in (1, 2):
        assert run_jobs(math.sqrt, [9.0, 4.0, 1.0], workers=workers, title="roots") == [3, 2, 1]
        with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
            run_jobs(math.sqrt, [1.0, -1.0], workers=workers, title="roots")
