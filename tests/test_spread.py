"""test.py and preprocessing_images.py in several processes: same files and numbers, errors told once, no remains."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_up_heads import write_heads
from made_up_volumes import write_volumes
from running import ROOT, run, start_together
from test_slurm import descendants
from test_testing import make_run

from evaluation.findings import Findings
from evaluation.subjects import part_of
from util.errors import UserError
from util.processes import ALONE, Processes, join_processes
from util.shared_folder import require_shared

RUN_DATE = re.compile(r"[-0-9]{10}[ T][0-9:]{5,}([+-][0-9:]+)?")
COMMAND = re.compile(r'("command": "|<td>command</td>\s*<td>).*')
Started = subprocess.Popen[str]


def torchrun(processes: int, program: str, *arguments: str) -> Started:
    """The program in so many processes of two processors together: one thread each, as in the process beside them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(mine)[:2]))  # what is started inherits it
    try:
        return subprocess.Popen(
            [*command, str(ROOT / program), *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        os.sched_setaffinity(0, mine)


def finished(process: Started, seconds: float = 300) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def together(count: int, program: str | Callable[[], None], *arguments: str) -> tuple[int, str, str]:
    """The worst status of so many processes, and what they printed one after the other; without torchrun itself."""
    started = start_together(program, *arguments, count=count)
    try:
        ended = [process.finished() for process in started]
    finally:
        for process in started:
            process.kill()
    return max(end.status for end in ended), "".join(end.out for end in ended), "".join(end.err for end in ended)


def alone(program: str, *arguments: str) -> None:
    """The program in this process, with one thread."""
    done = run(program, *arguments)
    assert done.status == 0, done.err


def content(folder: Path) -> dict[str, bytes]:
    """Every file by its path below the folder; reports and JSON files without their dates and the command."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix in (".html", ".json"):
                data = COMMAND.sub("", RUN_DATE.sub("", data.decode())).encode()
            found[str(path.relative_to(folder))] = data
    return found


def sentences(err: str) -> list[str]:
    """What our programs said, among torchrun's own lines."""
    return [line for line in err.splitlines() if ".py: error: " in line or ".py: warning: " in line]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of three subjects and the runs `cyc` and `enc`."""
    root = tmp_path_factory.mktemp("spread")
    write_heads(root / "data")
    make_run(root / "cyc", "cycle_gan")
    make_run(root / "enc", "sgp", seed=7)
    return root


def arguments_of(runs: Path, name: str, results: Path, *more: str) -> list[str]:
    given = ["--dataroot", str(runs / "data"), "--name", name, "--checkpoints_dir", str(runs), "--gpu_ids", "-1"]
    return [*given, "--results_dir", str(results), *more]


def test_two_processes_test_as_one_does(runs: Path, tmp_path: Path) -> None:
    more = ["--eval_encoder", str(runs / "enc"), "--protocol", "pta"]
    alone("test.py", *arguments_of(runs, "cyc", tmp_path / "one", *more))
    status, out, err = together(2, "test.py", *arguments_of(runs, "cyc", tmp_path / "two", *more))
    assert status == 0, err
    one, two = (content(tmp_path / name / "cyc" / "test_latest") for name in ("one", "two"))
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    assert json.loads(one["metrics.json"])["n_volumes"] == 3
    assert out.count("report: ") == 1 and not sentences(err)


def test_a_bad_volume_ends_all_is_told_once_and_leaves_nothing(tmp_path: Path) -> None:
    volumes = write_volumes(tmp_path / "volumes", flat="b1")
    status, _, err = finished(torchrun(2, "preprocessing_images.py", *volumes, "--out", str(tmp_path / "out")))
    assert status != 0
    path = tmp_path / "volumes" / "B" / "b1.nii.gz"
    assert sentences(err) == [f"preprocessing_images.py: error: {path}: every voxel is 7, need a volume with contrast"]
    assert list((tmp_path / "out").iterdir()) == []


def test_parts_are_of_like_size_and_together_everything() -> None:
    positions = {f"s{i}": list(range(n)) for i, n in enumerate((5, 40, 10, 9, 8, 7, 1))}
    parts = [part_of(positions, Processes(rank, 3)) for rank in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(positions)
    assert [sum(map(len, part.values())) for part in parts] == [40, 22, 18]
    assert list(parts[1]) == [name for name in positions if name in parts[1]]
    assert part_of(positions, ALONE) == positions
    assert part_of({"only": [0]}, Processes(1, 2)) == {}


def test_findings_are_put_back_in_the_order_of_one_process() -> None:
    parts = [
        Findings({"fake_B": {"c": {"psnr": 3.0}}}, n_volumes=1),
        Findings(),
        Findings({"fake_B": {"b": {"psnr": 2.0}, "a": {"psnr": 1.0}}}, n_volumes=2),
    ]
    merged = Findings.merged(parts, lambda row: "abc")
    assert list(merged.scores["fake_B"].items()) == [(name, {"psnr": n}) for n, name in enumerate("abc", 1)]
    assert merged.n_volumes == 3 and merged.sets.keys() == {"fake_B", "real_B", "identity"}


def test_one_process_waits_for_nobody(tmp_path: Path) -> None:
    def refuse() -> None:
        raise UserError("no")

    assert ALONE.alone(lambda: 1) == ALONE.together(lambda: 1) == 1
    assert ALONE.collected("x") == ["x"]
    assert list(ALONE.work_queue(3)) == list(ALONE.until_failure(range(3))) == [0, 1, 2]
    for call in (ALONE.alone, ALONE.together):
        with pytest.raises(UserError, match="no"):
            call(refuse)
    require_shared(tmp_path / "absent", "--out", ALONE)
    assert Processes(local_size=10_000).processors == 1 <= ALONE.processors


def workers(torchrun: Started, count: int) -> dict[int, int]:
    """The processes that torchrun has started, by rank."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = {}
        for pid in descendants(torchrun.pid):
            variables = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            ranks = [int(text.removeprefix(b"RANK=")) for text in variables if text.startswith(b"RANK=")]
            found |= {ranks[0]: pid} if ranks and ranks[0] not in found else {}
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not {count} processes")


@pytest.fixture
def simulating(tmp_path: Path) -> Iterator[Started]:
    """Two processes in the middle of a long simulation into `tmp_path/out`."""
    out = tmp_path / "out"
    arguments = ["--simulate", "--n_train", "50", "--n_test", "0", "--matrix", "64", "--out", str(out)]
    process = torchrun(2, "preprocessing_images.py", *arguments, "--workers", "2")
    end = time.monotonic() + 200
    while not list(out.glob("*/*.png")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


def remain(session: set[int], seconds: float = 30) -> set[int]:
    """Which of the processes are still there after a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and session:
        session = {pid for pid in session if (Path("/proc") / str(pid)).exists()}
        time.sleep(0.1)
    return session


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_killed_process_ends_all(simulating: Started, tmp_path: Path, killed: int) -> None:
    everything = set(descendants(simulating.pid))
    os.kill(workers(simulating, 2)[killed], signal.SIGKILL)
    status, _, err = finished(simulating, 90)
    assert status != 0 and "Signal 9 (SIGKILL)" in err
    assert remain(everything) == set()  # their workers too
    assert not (tmp_path / "out" / "manifest.json").exists()
    if killed != 0:  # the first process has emptied the folder
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_sigterm_to_torchrun_leaves_no_half_a_folder(simulating: Started, tmp_path: Path) -> None:
    everything = set(descendants(simulating.pid))
    os.kill(simulating.pid, signal.SIGTERM)
    status, _, _ = finished(simulating, 90)
    assert status != 0 and remain(everything) == set()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_more_processes_than_subjects_and_models_with_pretext_parts(runs: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "pta", "pta_hybrid")
    given = ["--dataroot", str(runs / "data"), "--name", "pta", "--checkpoints_dir", str(tmp_path), "--gpu_ids", "-1"]
    given += ["--average_mirrored", "--results_dir"]
    alone("test.py", *given, str(tmp_path / "one"))
    status, _, err = together(4, "test.py", *given, str(tmp_path / "four"))
    assert status == 0, err
    one, four = (content(tmp_path / name / "pta" / "test_latest") for name in ("one", "four"))
    assert one.keys() == four.keys() and [name for name in one if one[name] != four[name]] == []
    metrics = json.loads(one["metrics.json"])
    assert metrics["sgp"] and metrics["lsc"] and metrics["paired"]


@pytest.mark.slow
def test_mistakes_that_all_processes_meet_are_told_once(runs: Path, tmp_path: Path) -> None:
    cases = [
        ("test.py", arguments_of(runs, "never", tmp_path), "error: ", "never"),
        ("test.py", arguments_of(runs, "cyc", tmp_path, "--batch_size", "0"), "error: ", "--batch_size"),
        ("test.py", arguments_of(runs, "cyc", tmp_path, "--phase", "val"), "error: ", "valA"),
        ("preprocessing_images.py", ["--out", str(tmp_path / "data")], "error: ", "nothing to do"),
    ]
    for program, arguments, kind, text in cases:
        status, _, err = together(2, program, *arguments)
        assert status != 0
        (sentence,) = sentences(err)
        assert kind in sentence and text in sentence
        assert "Traceback" not in err.split(sentence)[0]
    status, out, _ = together(2, "test.py", "--help")
    assert status == 0 and out.count("usage: ") == 1
    assert not (tmp_path / "cyc").exists()


@pytest.mark.slow
def test_bad_slices_are_told_once_and_left_out(runs: Path, tmp_path: Path) -> None:
    write_heads(tmp_path / "data")
    bad = tmp_path / "data" / "testA" / "sub-2_003.png"
    bad.write_bytes(b"no picture")
    given = [*arguments_of(runs, "cyc", tmp_path / "two"), "--dataroot", str(tmp_path / "data")]
    status, _, err = together(2, "test.py", *given)
    assert status != 0 and len(sentences(err)) == 1 and "1 bad file, the first is" in sentences(err)[0]
    status, _, err = together(2, "test.py", *given, "--skip_bad")
    bad, volumes = sentences(err)
    assert status == 0 and "--skip_bad left out 1 bad file" in bad and "missing: 1;" in volumes
    alone("test.py", *given, "--skip_bad", "--results_dir", str(tmp_path / "one"))
    one, two = (content(tmp_path / name / "cyc" / "test_latest") for name in ("one", "two"))
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    status, out, _ = together(2, "test.py", *given, "--check_data")
    assert status != 0 and out.count("no picture") == 0 and out.count("1 bad file, listed in") == 1


@pytest.mark.slow
def test_volumes_of_one_s_own_with_workers_and_a_bad_one(tmp_path: Path) -> None:
    volumes = write_volumes(tmp_path / "volumes", flat="a1")
    alone("preprocessing_images.py", *volumes, "--out", str(tmp_path / "one"), "--workers", "1", "--skip_bad")
    arguments = [*volumes, "--out", str(tmp_path / "two"), "--workers", "2", "--skip_bad"]
    status, out, err = together(2, "preprocessing_images.py", *arguments)
    told = " ".join(out.split())  # the table's title is broken where the folder's name is long
    assert status == 0 and told.count(": 5 volumes") == 1 and len(sentences(err)) == 1, err
    assert content(tmp_path / "one") == content(tmp_path / "two")
    arguments = [*volumes, "--out", str(tmp_path / "three"), "--check_data"]
    status, out, _ = together(2, "preprocessing_images.py", *arguments)
    assert status != 0 and out.count("every voxel is 7") == 1 and "1 of 6 files cannot be used" in out
    assert [path.name for path in (tmp_path / "three").iterdir()] == ["bad_files.csv"]


@pytest.mark.slow
def test_the_simulated_benchmark_is_the_same_from_three_processes(tmp_path: Path) -> None:
    given = ["--simulate", "--n_train", "1", "--n_val", "0", "--n_test", "1", "--matrix", "32", "--nifti", "--out"]
    alone("preprocessing_images.py", *given, str(tmp_path / "one"), "--workers", "1")
    status, _, err = together(3, "preprocessing_images.py", *given, str(tmp_path / "three"))
    assert status == 0, err
    assert content(tmp_path / "one") == content(tmp_path / "three")


def tell_what_is_listened_on() -> None:
    with join_processes() as processes:
        processes.gathered(None)
        folder = Path("/proc/self/fd")
        mine = {str(path.readlink()) for path in folder.iterdir() if path.is_symlink()}
        tables = (Path(f"/proc/self/net/{kind}").read_text().splitlines()[1:] for kind in ("tcp", "tcp6"))
        rows = [line.split() for table in tables for line in table]
        listening = [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine]
        print("listens on", sorted(set(listening)))
        processes.gathered(None)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc; elsewhere gloo chooses the interface itself")
def test_processes_of_one_machine_listen_on_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    status, out, err = together(2, tell_what_is_listened_on)
    assert status == 0, err
    assert out.count("listens on ['0100007F']") == 2  # 127.0.0.1
