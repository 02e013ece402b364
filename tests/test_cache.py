"""The packed cache: the same slices as the files, built anew whenever it cannot be trusted, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import train_arguments, write_phantom
from made_up_heads import write_heads

import data.cache.slice_cache
import train
from data.cache.pack import COLUMNS
from data.cache.packed_slices import PackedSlices
from data.cache.place import CACHE_NAME
from data.cache.slice_cache import SliceCache
from data.cache.store import DATA_NAME, Store, Texts
from data.folder.manifest import MANIFEST_NAME
from data.folder.masks import head_mask_slice
from data.folder.slice_folder import SliceFolder
from data.folder.slices import read_image, read_mask, write_image, write_mask, write_pixels
from data.unaligned_dataset import UnalignedMaskDataset
from data.unaligned_options import UnalignedOptions
from evaluation.folders import open_test_data
from util.errors import UserError

RNG = np.random.default_rng(0)
GREY = np.full((32, 32), 0.5, dtype=np.float32)


def open_a(root: Path, **options: bool) -> PackedSlices:
    return SliceCache(root, root.parent / "cache", **options).open("train", "A")


def names(slices: PackedSlices) -> list[str]:
    return [slices.name(i) for i in range(len(slices))]


def the_same(slices: PackedSlices, folder: SliceFolder) -> None:
    """Every slice, mask and position is what the files say, bit for bit."""
    assert names(slices) == [path.name for path in folder.files]
    assert slices.p.tolist() == folder.p.tolist() and slices.index.tolist() == folder.index.tolist()
    table = slices.pack.subjects
    assert [table.subjects[k] for k in table.subject] == folder.subjects
    for i in range(len(slices)):
        image, mask = slices.image(i), slices.mask(i)
        assert image.dtype == np.float32 and mask.dtype == np.bool_ and slices.shape(i) == image.shape
        np.testing.assert_array_equal(image, read_image(folder.files[i]))
        np.testing.assert_array_equal(mask, folder.mask(i))


def write_odd(root: Path) -> Path:
    """Slices of every kind and of odd sizes, with masks."""
    (root / "trainA").mkdir(parents=True)
    (root / "trainA_mask").mkdir()
    shapes = {"u1": (7, 5), "<u2": (32, 33), ">u2": (1, 1), "f4": (3, 50), "f8": (9, 9), "?": (5, 4)}
    for i, (dtype, shape) in enumerate(shapes.items()):
        top = {"u1": 255, "<u2": 65535, ">u2": 65535, "?": 2}.get(dtype, 1)
        np.save(root / "trainA" / f"s_{i}.npy", (RNG.random(shape) * top).astype(dtype))
        write_mask(root / "trainA_mask" / f"s_{i}.png", RNG.random(shape) < 0.5)
    write_pixels(root / "trainA/s_90.png", RNG.integers(0, 256, (6, 7)).astype(np.uint8))
    write_pixels(root / "trainA/s_91.png", RNG.integers(0, 65536, (6, 7)).astype(np.uint16))
    for i in (90, 91):
        np.save(root / "trainA_mask" / f"s_{i}.npy", RNG.random((6, 7)) < 0.5)
    return root


def test_every_kind_of_file_comes_back_bit_for_bit(tmp_path: Path) -> None:
    root = write_odd(tmp_path / "data")
    slices = open_a(root)
    the_same(slices, SliceFolder(root, "train", "A"))
    assert {slices.pack.pixels(i).dtype.str for i in range(len(slices))} == {"|u1", "<u2", "<f4"}
    mask = read_mask(root / "trainA_mask/s_90.npy")
    np.testing.assert_array_equal(slices.mask(names(slices).index("s_90.png")), mask)
    whole = slices.gather(np.array([3, 0, 3, 6, 2]))
    assert sorted(place for places, _, _ in whole for place in places.tolist()) == [0, 1, 2, 3, 4]
    assert [levels.shape for _, levels, _ in whole] == [(1, 1, 1), (2, 3, 50), (1, 6, 7), (1, 7, 5)]


def test_masks_are_computed_where_there_are_none(phantom: Path) -> None:
    shutil.rmtree(phantom / "trainA_mask")
    slices = open_a(phantom)
    for i in range(len(slices)):
        np.testing.assert_array_equal(slices.mask(i), head_mask_slice(slices.image(i)))
        assert slices.mask(i).any()


def test_a_manifest_gives_the_positions(tmp_path: Path) -> None:
    root = write_heads(tmp_path / "heads")
    slices = SliceCache(root, tmp_path / "cache").open("train", "B")
    folder = SliceFolder(root, "train", "B")
    the_same(slices, folder)
    assert slices.has_manifest and slices.pack.level_mm.tolist() == folder.level_mm.tolist()
    assert slices.volume.tolist() == [0] * 5 + [1] * 5


def test_it_is_built_once(phantom: Path, builds: list[str]) -> None:
    first = open_a(phantom)
    again = open_a(phantom)
    assert builds == ["trainA"]
    the_same(again, SliceFolder(phantom, "train", "A"))
    assert first.fingerprint() == again.fingerprint()
    cache = SliceCache(phantom, phantom.parent / "cache")
    UnalignedMaskDataset(cache, UnalignedOptions(load_size=32))
    assert cache.shared_subjects() == [] and builds == ["trainA", "trainB"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "a slice more": lambda root: (
        write_image(root / "trainA/trainA0_009.png", GREY, 8),
        write_mask(root / "trainA_mask/trainA0_009.png", GREY > 0),
    ),
    "a slice less": lambda root: [(root / kind / "trainA0_003.png").unlink() for kind in ("trainA", "trainA_mask")],
    "another name": lambda root: [
        (root / kind / "trainA0_003.png").rename(root / kind / "trainA0_007.png") for kind in ("trainA", "trainA_mask")
    ],
    "no masks": lambda root: shutil.rmtree(root / "trainA_mask"),
    "another folder in its place": lambda root: (
        shutil.copytree(root / "testA", root / "other"),
        (root / "trainA").rename(root / "old"),
        (root / "trainA").symlink_to(root / "other"),
        shutil.rmtree(root / "trainA_mask"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_changed_is_packed_anew(phantom: Path, builds: list[str], change: str) -> None:
    before = open_a(phantom).fingerprint()
    CHANGES[change](phantom)
    slices = open_a(phantom)
    assert builds == ["trainA"] * 2
    the_same(slices, SliceFolder(phantom, "train", "A"))
    assert slices.fingerprint() != before
    assert len(list((phantom.parent / "cache").glob("*/trainA-*"))) == 1, "the old pack is gone"


def test_a_mask_that_was_replaced_is_noticed(phantom: Path, builds: list[str]) -> None:
    open_a(phantom)
    new = phantom / "trainA_mask/new.png"
    write_mask(new, GREY > 1)
    new.replace(phantom / "trainA_mask/trainA0_000.png")
    assert not open_a(phantom).mask(0).any()


def test_a_manifest_that_changed_is_noticed(tmp_path: Path, builds: list[str]) -> None:
    root = write_heads(tmp_path / "heads")
    cache = SliceCache(root, tmp_path / "cache")
    cache.open("train", "B")
    content = json.loads((root / MANIFEST_NAME).read_text())
    content["volumes"][-1]["slices"][0]["p"] = 0.0625
    (root / MANIFEST_NAME).write_text(json.dumps(content))
    assert cache.open("train", "B").p[5] == 0.0625 and len(builds) == 2
    (root / MANIFEST_NAME).unlink()
    assert not cache.open("train", "B").has_manifest and len(builds) == 3


def rewrite(path: Path, content: bytes) -> None:
    """Write over a file as programs do: neither its folder nor its place on the disk changes."""
    folder, inode = path.parent.stat().st_mtime_ns, path.stat().st_ino
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    assert (path.parent.stat().st_mtime_ns, path.stat().st_ino) == (folder, inode)


@pytest.mark.parametrize("kind", ["slices", "masks"])
def test_a_file_rewritten_in_place_is_noticed(
    phantom: Path, builds: list[str], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    cache = SliceCache(phantom, phantom.parent / "cache")
    before, other = cache.open("train", "A"), cache.open("train", "B")
    folder = "trainA" if kind == "slices" else "trainA_mask"
    new, path = phantom / "new.png", phantom / folder / "trainA0_000.png"
    write_image(new, GREY, 8) if kind == "slices" else write_mask(new, GREY > 1)
    capsys.readouterr()
    rewrite(path, new.read_bytes())
    again = SliceCache(phantom, phantom.parent / "cache")
    slices = again.open("train", "A")
    (told,) = capsys.readouterr().err.splitlines()
    assert told.endswith(f"trainA: {kind} changed since the cache was built; this part of it is built anew")
    the_same(slices, SliceFolder(phantom, "train", "A"))
    assert slices.fingerprint() != before.fingerprint()
    assert again.open("train", "B").fingerprint() == other.fingerprint() and builds == ["trainA", "trainB", "trainA"]
    open_a(phantom)
    assert len(builds) == 3 and not capsys.readouterr().err


def test_a_size_alone_or_a_time_alone_is_noticed(phantom: Path, builds: list[str]) -> None:
    path = phantom / "trainA_mask/trainA0_000.png"
    status = path.stat()
    open_a(phantom)
    rewrite(path, path.read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    open_a(phantom)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    open_a(phantom)
    assert len(builds) == 3


def test_what_is_no_slice_does_not_matter(phantom: Path, builds: list[str]) -> None:
    path = phantom / "trainA/.DS_Store"
    path.write_text("one")
    (phantom / "trainA/lost.png").symlink_to(phantom / "nowhere.png")
    open_a(phantom, skip_bad=True)
    rewrite(path, b"another")
    open_a(phantom, skip_bad=True)
    assert builds == ["trainA"]


def test_revalidate_builds_anew(phantom: Path, builds: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = open_a(phantom).fingerprint()
    assert open_a(phantom, revalidate=True).fingerprint() == before
    assert builds == ["trainA"] * 2 and not capsys.readouterr().err


def test_bad_files_are_remembered_for_those_who_skip_them(phantom: Path, builds: list[str]) -> None:
    path = phantom / "trainA/trainA0_001.png"
    whole = path.read_bytes()
    path.write_bytes(b"")
    for _ in range(2):
        slices = open_a(phantom)
        assert [problem.path for problem in slices.problems] == [path]
        assert slices.problems[0].reason == "cannot be read as a PNG, the file is empty"
    assert builds == ["trainA"] * 2, "without --skip_bad somebody may have mended it"
    skipped = open_a(phantom, skip_bad=True)
    assert builds == ["trainA"] * 2 and skipped.problems == slices.problems
    assert "trainA0_001.png" not in names(skipped) and len(skipped) == 11
    kept = dict(
        zip(
            [f.name for f in SliceFolder(phantom, "train", "A").files],
            SliceFolder(phantom, "train", "A").p,
            strict=True,
        )
    )
    assert all(kept[name] == p for name, p in zip(names(skipped), skipped.p, strict=True)), "positions stay"
    path.write_bytes(whole)
    assert open_a(phantom).problems == [] and len(open_a(phantom)) == 12 and len(builds) == 3


def test_namesakes_of_what_is_refused_are_left_out_with_it(phantom: Path) -> None:
    np.save(phantom / "trainA/trainA0_001.npy", GREY)
    slices = open_a(phantom)
    assert [problem.path.name for problem in slices.problems] == ["trainA0_001.png"]
    assert not any(name.startswith("trainA0_001") for name in names(slices))


def test_slices_can_be_left_out(phantom: Path) -> None:
    slices = open_a(phantom)
    before = slices.fingerprint()
    bad = [data.cache.slice_cache.Problem(phantom / "trainA" / f"trainA0_00{i}.png", "x") for i in (2, 4)]
    slices.exclude([*bad, data.cache.slice_cache.Problem(phantom / "trainB/trainA0_000.png", "elsewhere")])
    assert [name[-5] for name in names(slices)[:4]] == ["0", "1", "3", "5"] and slices.fingerprint() != before
    np.testing.assert_array_equal(slices.image(2), read_image(phantom / "trainA/trainA0_003.png"))
    assert slices.volume.tolist() == [0] * 4 + [1] * 6 and slices.shapes.shape == (10, 2)
    slices.truncate(3)
    assert [name[-5] for name in names(slices)] == ["0", "1", "3"]
    slices.truncate(None)
    slices.truncate(5)
    assert len(slices) == 3
    with pytest.raises(UserError, match="no slice can be used"):
        slices.exclude([data.cache.slice_cache.Problem(phantom / "trainA" / name, "x") for name in names(slices)])


def test_a_folder_that_cannot_be_written_to_is_no_hindrance(phantom: Path, tmp_path: Path) -> None:
    everything = {path: path.stat().st_mtime_ns for path in [phantom, *phantom.rglob("*")]}
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert not train.main([*train_arguments(phantom, tmp_path / "out", "lsc"), "--n_epochs=0", "--lsc_steps=1"])
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.stat().st_mtime_ns for path in [phantom, *phantom.rglob("*")]} == everything
    assert {path.name for path in (tmp_path / "out").iterdir()} == {CACHE_NAME, "experiment"}


def test_cache_dir_says_where(phantom: Path, tmp_path: Path) -> None:
    arguments = [
        *train_arguments(phantom, tmp_path / "out", "lsc"),
        "--lsc_steps=1",
        f"--cache_dir={tmp_path / 'there'}",
    ]
    assert not train.main(arguments)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["experiment"]
    assert len(list((tmp_path / "there").glob("*/trainA.json"))) == 1


def test_where_it_cannot_be_written_is_told(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    arguments = [*train_arguments(phantom, tmp_path / "out", "lsc"), f"--cache_dir={tmp_path / 'file'}"]
    with pytest.raises(UserError, match=rf"^--cache_dir {tmp_path}/file: .* cannot be written \(.*\); give another"):
        train.main(arguments)


@pytest.mark.parametrize("program", ["train", "test"])
def test_no_run_may_bear_its_name(phantom: Path, program: str) -> None:
    main = {"train": train.main, "test": __import__("test").main}[program]
    with pytest.raises(UserError, match=r"--name is '.cache', which is the name of the cache folder"):
        main([f"--dataroot={phantom}", f"--name={CACHE_NAME}"])


def test_each_data_folder_has_a_place_of_its_own(phantom: Path, tmp_path: Path) -> None:
    other = write_phantom(tmp_path / "other", subjects=3)
    (tmp_path / "link").symlink_to(phantom)
    sizes = [
        len(SliceCache(root, tmp_path / "cache").open("train", "A")) for root in (phantom, other, tmp_path / "link")
    ]
    assert sizes == [12, 18, 12] and len(list((tmp_path / "cache").iterdir())) == 2
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert SliceCache(Path("phantom"), tmp_path / "cache").root == SliceCache(phantom, tmp_path / "cache").root
    finally:
        os.chdir(before)


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    """Odd names are kept as text; nothing in the cache is named after a slice or a subject."""
    root = tmp_path / "deep" / "data"
    (root / "trainA").mkdir(parents=True)
    for name in ("-rf_1", "x.._2", "$(touch x)_3", "ä 头_4", "a\\..\\b_5"):
        write_image(root / "trainA" / f"{name}.png", GREY, 8)
    (root / "trainA/out_9.png").symlink_to("/etc/hostname")
    (root / os.fsdecode(b"trainA/\xff\xfe_1.png")).write_bytes(b"")
    slices = open_a(root)
    the_same(slices, SliceFolder(root, "train", "A"))
    assert len(slices.problems) == 2 and len(slices) == 5
    assert open_a(root, skip_bad=True).problems == slices.problems
    written = [path for path in tmp_path.rglob("*") if not path.is_relative_to(root)]
    allowed = {"deep", "cache", "trainA.json", "trainA.lock", DATA_NAME, *(f"{column}.npy" for column in COLUMNS)}
    assert {path.name for path in written if not path.name.startswith("trainA-") and len(path.name) != 16} <= allowed


def test_all_splits_are_asked_for_shared_subjects(
    phantom: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = SliceCache(phantom, phantom.parent / "cache")
    cache.open("train", "A")
    assert cache.shared_subjects() == []
    again = SliceCache(phantom, phantom.parent / "cache")
    again.open("train", "A")
    listed: list[Path] = []
    real = data.folder.slice_folder.list_slices
    monkeypatch.setattr("data.folder.slice_folder.list_slices", lambda *args: listed.append(args[0]) or real(*args))
    assert again.shared_subjects() == [] and not listed, "their names are remembered"
    for name in ("testA/TRAINA0_009", "valA/trainA1_009"):
        write_image(phantom / f"{name}.png", GREY, 8)
    found = {problem.path.relative_to(phantom).as_posix(): problem.reason for problem in again.shared_subjects()}
    assert found == {
        "testA/TRAINA0_009.png": "subject 'TRAINA0' is in trainA too; a subject belongs to one split",
        "valA/trainA1_009.png": "subject 'trainA1' is in trainA too; a subject belongs to one split",
    }
    assert {path.name for path in listed} == {"testA", "valA"} and builds == ["trainA"]


def test_a_test_takes_training_slices_from_the_cache(tmp_path: Path, builds: list[str]) -> None:
    root = write_heads(tmp_path / "heads")
    for _ in range(2):
        cache = SliceCache(root, tmp_path / "cache")
        found = open_test_data(root, "test", table_in=tmp_path, cache=cache)
        assert isinstance(found.train_target, PackedSlices) and builds == ["trainB"]
        the_same(found.train_target, SliceFolder(root, "train", "B"))
    (tmp_path / "file").write_text("")
    found = open_test_data(root, "test", table_in=tmp_path, cache=SliceCache(root, tmp_path / "file"))
    assert isinstance(found.train_target, SliceFolder), "somebody else's run can be tested, too"


def test_texts_come_back() -> None:
    texts = ["", "a", "ä头", "x" * 1000, "\udcff", ""]
    kept = Texts.of(texts)
    assert list(kept) == texts and kept[-2] == "\udcff" and kept[1:3] == texts[1:3]
    assert list(Texts.from_columns(kept.columns("x"), "x")) == texts
    assert list(Texts.of([])) == []
    with pytest.raises(IndexError):
        kept[6]


def test_an_empty_table_can_be_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, "x")
    with store.building() as part:
        store.publish(part, {"n": np.empty(0, np.int64)}, {})
    found = store.read({"n": np.int64})
    assert found is not None and len(found[1]["n"]) == len(found[2]) == 0
    assert store.read({"n": np.int32}) is None and store.read({"m": np.int64}) is None
