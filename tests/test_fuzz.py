"""A thousand damaged files of the fuzzer, in this process; those that once went wrong; and the fuzzer's own alarms."""

from __future__ import annotations

import mmap
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts import fuzz
from scripts.mutations import AWARE
from util.errors import UserError

FOUND = sorted((Path(__file__).parent / "fuzz_cases").iterdir())  # KIND-WHAT


pytestmark = pytest.mark.filterwarnings("ignore")  # what libraries say of damaged files


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """The fuzzer's alarm; its memory limit is for processes of its own."""

    def ring(signum: int, frame: object) -> None:
        raise fuzz.TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(tmp_path: Path, count: int) -> None:
    total: Counter[tuple[str, str]] = Counter()
    with np.errstate(all="ignore"):
        for index in range(count):
            kind, content = fuzz.make_case(0, index)
            result = fuzz.outcome(kind, tmp_path, content)
            assert result in fuzz.PASSED, (index, kind, result)
            total[kind, result] += 1
    for kind in AWARE:
        assert total[kind, "refused"] > count / 50, "most damage must be noticed"
        assert total[kind, "read"] > 0, "what is whole must be read"


@pytest.mark.parametrize("kind", AWARE)
def test_whole_files_are_read(kind: str, tmp_path: Path) -> None:
    for content in fuzz.seeds(kind):
        assert fuzz.outcome(kind, tmp_path, content) == "read"


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_once_went_wrong_is_refused(path: Path, tmp_path: Path) -> None:
    assert path.stat().st_size < 20_000
    assert fuzz.outcome(path.name.partition("-")[0], tmp_path, path.read_bytes()) == "refused"


def test_the_same_seed_gives_the_same_cases() -> None:
    assert [fuzz.make_case(7, index) for index in range(50)] == [fuzz.make_case(7, index) for index in range(50)]
    assert [fuzz.make_case(7, index) for index in range(50)] != [fuzz.make_case(8, index) for index in range(50)]


def test_the_fuzzer_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(kind: str, folder: Path) -> None:
        match kind:
            case "png":
                raise KeyError("a traceback")
            case "npy":
                time.sleep(60)
            case "nifti":
                (folder / "left").write_text("x")
            case "manifest":
                raise UserError("two\nlines" * 10_000)
            case "options":
                np.frombuffer(mmap.mmap(-1, 2**27), np.uint8)[:] = 1  # new memory; malloc may have as much lying idle

    monkeypatch.setattr(fuzz, "read", read)
    monkeypatch.setattr(fuzz, "SECONDS", 60)  # a busy machine may take a second to fill the memory
    monkeypatch.setattr(fuzz, "MEMORY", 2**26)
    results = [fuzz.outcome(kind, tmp_path, b"") for kind in ("png", "nifti", "options", "safetensors")]
    assert results == ["KeyError", "wrote files", "out of memory", "read"]
    assert fuzz.outcome("manifest", tmp_path, b"") == "refused"  # UserError itself sees to one short line
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    assert fuzz.outcome("npy", tmp_path, b"") == "too slow"
    assert not list(tmp_path.iterdir())


def test_an_alarm_that_rings_as_the_reading_ends_is_that_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setitimer = signal.setitimer

    def stop_late(which: int, seconds: float) -> None:
        if not seconds:
            signal.raise_signal(signal.SIGALRM)
        setitimer(which, seconds)

    monkeypatch.setattr(fuzz, "read", lambda kind, folder: None)
    monkeypatch.setattr(fuzz.signal, "setitimer", stop_late)
    assert fuzz.outcome("png", tmp_path, b"") == "too slow"
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_processes_that_die_or_hang_are_found_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(kind: str, folder: Path, content: bytes) -> str:
        if kind == "npy":
            signal.raise_signal(signal.SIGKILL)
        if kind == "manifest":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(60)
        return "read"

    monkeypatch.setattr(fuzz, "outcome", outcome)
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    total = fuzz.run(0, 7, 2, tmp_path)
    assert total == {(kind, "process died" if kind in ("npy", "manifest") else "read"): 1 for kind in AWARE}
    assert {path.name for path in tmp_path.iterdir()} == {"npy-0-1-process_died", "manifest-0-3-process_died"}
