"""The cache after damage and crashes, and while several build it: what cannot be trusted is built anew."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import start
from test_cache import GREY, open_a, the_same

from data.cache.pack import COLUMNS, Pack
from data.cache.slice_cache import CacheNotWritable, SliceCache
from data.cache.store import DATA_NAME
from data.folder.slice_folder import SliceFolder
from data.folder.slices import read_image, write_image
from util.errors import UserError
from util.files import PART


def pack_of(root: Path) -> tuple[Path, Path]:
    """Header and folder of trainA's pack."""
    (header,) = (root.parent / "cache").glob("*/trainA.json")
    return header, header.parent / json.loads(header.read_text())["folder"]


@pytest.mark.parametrize("name", [*(f"{column}.npy" for column in COLUMNS), DATA_NAME])
def test_a_damaged_file_is_not_trusted(phantom: Path, builds: list[str], name: str) -> None:
    (phantom / "trainA/folder.png").mkdir()  # so that every column holds something
    open_a(phantom, skip_bad=True)
    for damage in ("cut", "gone", "empty", "a folder", "changed", "longer"):
        path = pack_of(phantom)[1] / name
        content = path.read_bytes()
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        elif damage != "gone":
            flipped = bytes([content[-1] ^ 1])
            new = {"cut": content[:-1], "empty": b"", "changed": content[:-1] + flipped, "longer": content + b"x"}
            path.write_bytes(new[damage])
        whole = name == DATA_NAME and damage == "changed"  # too large to be read through at every start
        builds.clear()
        slices = open_a(phantom, skip_bad=True)
        assert builds == ([] if whole or (damage == "longer" and name != DATA_NAME) else ["trainA"]), damage
        if not whole:
            the_same(slices, SliceFolder(phantom, "train", "A"))
        if not builds:
            open_a(phantom, skip_bad=True, revalidate=True)


HEADERS: dict[str, Callable[[dict], object]] = {
    "another format": lambda header: header.update(format=99),
    "another byte order": lambda header: header.update(byteorder="middle"),
    "a folder elsewhere": lambda header: header.update(folder="../../data/trainA-x"),
    "a folder of another name": lambda header: header.update(folder="trainB-12345678"),
    "no folder": lambda header: header.pop("folder"),
    "a size that is wrong": lambda header: header.update(data_bytes=header["data_bytes"] + 8),
    "a column without checksum": lambda header: header["checksums"].pop("p"),
    "facts of another kind": lambda header: header.update(facts={"source": 5}),
    "more than it should hold": lambda header: header.update(run="os.system"),
}


@pytest.mark.parametrize("change", [*HEADERS, "garbage", "gone", "huge"])
def test_a_damaged_header_is_not_trusted(phantom: Path, builds: list[str], change: str) -> None:
    open_a(phantom)
    path, _ = pack_of(phantom)
    if change in HEADERS:
        header = json.loads(path.read_text())
        HEADERS[change](header)
        path.write_text(json.dumps(header))
    else:
        path.unlink()
        if change != "gone":
            path.write_bytes(b"{" if change == "garbage" else b" " * 100_000_000)
    the_same(open_a(phantom), SliceFolder(phantom, "train", "A"))
    assert builds == ["trainA"] * 2


WRONG: dict[str, tuple[str, Callable[[np.ndarray], object]]] = {
    "beyond the end": ("offset", lambda x: x.__setitem__(3, 10**12)),
    "before the beginning": ("offset", lambda x: x.__setitem__(3, -8)),
    "between two numbers": ("offset", lambda x: x.__setitem__(3, 3)),
    "overflow": ("offset", lambda x: x.__setitem__(3, 2**63 - 8)),
    "no pixels": ("height", lambda x: x.__setitem__(3, 0)),
    "too many pixels": ("width", lambda x: x.__setitem__(3, 4097)),
    "an unknown kind": ("kind", lambda x: x.__setitem__(3, 3)),
    "no level": ("p", lambda x: x.__setitem__(3, np.nan)),
    "a level above 1": ("p", lambda x: x.__setitem__(3, 1.5)),
    "nobody's": ("subject", lambda x: x.__setitem__(3, 99)),
    "a subject before the first": ("subject", lambda x: x.__setitem__(3, -1)),
    "a name that ends before it begins": ("names_end", lambda x: x.__setitem__(3, 0)),
    "a name beyond the end": ("names_end", lambda x: x.__setitem__(-1, 10**9)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_tables_that_lead_nowhere_are_refused(phantom: Path, kind: str) -> None:
    """Bounds are looked at although the checksums are right: whoever writes a table can write its checksum."""
    slices = open_a(phantom)
    found = slices.store.read(COLUMNS)
    assert found is not None and Pack.from_columns(found[1], found[2], phantom) is not None
    columns = {name: column.copy() for name, column in found[1].items()}
    name, change = WRONG[kind]
    change(columns[name])
    assert Pack.from_columns(columns, found[2], phantom) is None


def test_columns_of_different_length_are_refused(phantom: Path) -> None:
    found = open_a(phantom).store.read(COLUMNS)
    assert found is not None
    for name in COLUMNS:
        if name not in ("bad_paths", "bad_reasons"):  # of nothing
            short = {**found[1], name: found[1][name][:-1]}
            if name.startswith("bad_"):
                short[name] = np.zeros(1, np.int64)
            assert Pack.from_columns(short, found[2], phantom) is None, name


def test_python_objects_are_not_loaded(phantom: Path, builds: list[str]) -> None:
    open_a(phantom)
    path = pack_of(phantom)[1] / "p.npy"
    path.unlink()
    np.save(path, np.array([print, None], dtype=object), allow_pickle=True)
    open_a(phantom)
    assert builds == ["trainA"] * 2


def test_a_build_that_fails_leaves_nothing(phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device", "slices.bin")

    with monkeypatch.context() as patch:
        patch.setattr("data.cache.pack.os.fsync", full)
        with pytest.raises(CacheNotWritable, match=r"slices.bin cannot be written \(No space left on device\)"):
            open_a(phantom)
    assert [path.name for path in (phantom.parent / "cache").glob("*/*")] == ["trainA.lock"]
    the_same(open_a(phantom), SliceFolder(phantom, "train", "A"))


def test_what_a_killed_build_left_is_removed(phantom: Path) -> None:
    open_a(phantom)
    (root,) = (phantom.parent / "cache").iterdir()
    for name in (f"trainA-1234abcd{PART}", "trainA-deadbeef"):
        (root / name).mkdir()
        (root / name / DATA_NAME).write_bytes(b"half")
    write_image(phantom / "trainA_mask/trainA0_000.png", GREY, 8)
    open_a(phantom, revalidate=True)
    assert len(list(root.glob("trainA-*"))) == 1


def build(root: Path, go: Path) -> None:
    """In a process of its own: wait for `go`, then open."""
    while not go.exists():
        pass
    the_same(open_a(root), SliceFolder(root, "train", "A"))


def test_builders_at_the_same_time_do_no_harm(phantom: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(3):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        processes = [context.Process(target=build, args=(phantom, tmp_path / f"go{turn}")) for _ in range(4)]
        for process in processes:
            process.start()
        (tmp_path / f"go{turn}").touch()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 4
        assert len(list((tmp_path / "cache").glob("*/trainA-*"))) == 1


def test_an_old_pack_can_be_read_on_while_a_new_one_is_built(phantom: Path) -> None:
    old = open_a(phantom)
    wanted = read_image(phantom / "trainA/trainA0_000.png")
    write_image(phantom / "trainA/trainA0_000.png", GREY, 8)
    new = open_a(phantom, revalidate=True)
    np.testing.assert_array_equal(old.image(0), wanted)
    assert (new.image(0) == read_image(phantom / "trainA/trainA0_000.png")).all()
    with pytest.raises(UserError, match="another run has rebuilt the cache"):
        pickle.loads(pickle.dumps(old))
    assert len(pickle.dumps(new)) < 2000, "no slice travels"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(new)).image(3), new.image(3))


def build_until_killed(dataroot: Path, place: Path, call: int) -> None:
    """SIGKILL instead of so many a call of fsync."""
    calls, fsync = iter(range(1, call + 1)), os.fsync

    def die(descriptor: int) -> None:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = die
    SliceCache(dataroot, place, revalidate=True).open("train", "A")


@pytest.mark.parametrize("call", [1, 5, 20, 22])
def test_a_killed_build_harms_nothing(phantom: Path, tmp_path: Path, call: int) -> None:
    the_same(open_a(phantom), SliceFolder(phantom, "train", "A"))
    done = start(build_until_killed, phantom, tmp_path / "cache", call).finished()
    assert done.status == -signal.SIGKILL, done.err
    the_same(open_a(phantom), SliceFolder(phantom, "train", "A"))
    the_same(open_a(phantom, revalidate=True), SliceFolder(phantom, "train", "A"))
    assert len(list((tmp_path / "cache").glob("*/trainA-*"))) == 1
