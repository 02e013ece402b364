"""Checkpoints as files: what is damaged is noticed, what replaces it is said, what is old goes, what belongs stays."""

from __future__ import annotations

import errno
import json
import random
import zipfile
from copy import copy
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import train_arguments, write_phantom
from torch import nn

import train
from models.trained import load_trained
from models.weights import SUFFIXES, load_weights, weights_files, weights_name
from training.checkpoints import RunCheckpoints
from util.checkpoint import (
    FORMAT,
    UnusableCheckpoint,
    checkpoint_path,
    read_checkpoint,
    read_newest,
    unseal,
    write_checkpoint,
)
from util.checksum import SMALL, TooLarge, digest
from util.errors import UserError

CONTENT: dict[str, Any] = {
    "weights": {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(3, dtype=torch.bfloat16), 7: torch.zeros(0)},
    "values": [1, 2.5, True, None, "text", (1, 2)],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a data folder `phantom` and of `runs/run`, an LSC of two epochs, each saved."""
    root = tmp_path_factory.mktemp("trained")
    write_phantom(root / "phantom", splits=("train",))
    train.main(arguments(root))
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained`."""
    return copytree(trained, tmp_path / "copy")


def arguments(root: Path, *more: str) -> list[str]:
    small = ("--name=run", "--lsc_steps=100", "--save_epoch_freq=1", "--save_latest_freq=4")
    return train_arguments(root / "phantom", root / "runs", "lsc", *small, *more)


# the checksum ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.pt", CONTENT)
    found = read_checkpoint(tmp_path / "x.pt")
    assert found["values"] == CONTENT["values"]
    for name, tensor in CONTENT["weights"].items():
        assert torch.equal(found["weights"][name], tensor)
        assert found["weights"][name].dtype == tensor.dtype
    assert set(torch.load(tmp_path / "x.pt", weights_only=True)) == {"format", "sha256", *CONTENT}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


A = CONTENT["weights"]["a"]
CHANGES = {
    "a value": {**CONTENT, "values": [1, 2.5, True, None, "text", (1, 3)]},
    "a type of value": {**CONTENT, "values": [1, 2.5, 1, None, "text", (1, 2)]},
    "a kind of container": {**CONTENT, "values": [1, 2.5, True, None, "text", [1, 2]]},
    "the sign of a zero": {
        **CONTENT,
        "weights": CONTENT["weights"] | {"a": A.copysign(torch.where(A == 0, -1.0, 1.0))},
    },
    "a bit": {**CONTENT, "weights": CONTENT["weights"] | {"a": A.nextafter(torch.ones(()))}},
    "a shape": {**CONTENT, "weights": CONTENT["weights"] | {"a": A.reshape(4, 3)}},
    "a name": {**CONTENT, "weights": {"A": A}},
    "a part more": {**CONTENT, "more": {}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_changes_the_checksum(change: str) -> None:
    assert digest(CHANGES[change]) != digest(CONTENT)


def test_tensors_of_any_size_have_the_same_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones are hashed at once, large ones by other threads."""
    large = torch.arange(SMALL).reshape(4, -1)
    assert digest({"x": large}) != digest({"x": large.flip(0)})
    mixed = {**CONTENT, "weights": {**CONTENT["weights"], "large": large}}
    whole = digest(mixed)
    for threshold in (0, 1 << 40):
        monkeypatch.setattr("util.checksum.SMALL", threshold)
        assert digest(mixed) == whole


NOT_PLAIN = {
    "a set": {1},
    "a key of another kind": {(1, 2): 3},
    "a sparse tensor": torch.eye(2).to_sparse(),
    "a tensor without memory": torch.zeros(2, device="meta"),
    "a repeated number": torch.zeros(1).expand(100),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_what_is_not_plain_has_no_checksum(kind: str) -> None:
    with pytest.raises((TypeError, TooLarge), match=r"/'x' (is|has|repeats)"):
        digest({**CONTENT, "x": NOT_PLAIN[kind]})


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Either the file is refused, or the byte did not matter (padding of the archive) and the content is the same."""
    path, rng, refused = tmp_path / "x.pt", random.Random(0), 0
    write_checkpoint(path, CONTENT)
    whole = path.read_bytes()
    for _ in range(300):
        at = rng.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        try:
            assert digest(unseal(read_checkpoint(path))) == digest(CONTENT)
        except UserError:
            refused += 1
    assert refused > 100
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UnusableCheckpoint, match=r"x\.pt: cannot be read as a checkpoint"):
            read_checkpoint(path)


def test_what_is_not_our_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    cases = [
        ({"format": FORMAT - 1, **CONTENT}, f"checkpoint format {FORMAT - 1}, this version reads format {FORMAT}"),
        ({"format": FORMAT, "sha256": "0", **CONTENT}, "damaged"),
        ({"format": FORMAT, **CONTENT}, "cannot be read as a checkpoint"),
        ({"format": torch.zeros(2), **CONTENT}, "cannot be read as a checkpoint"),
        ([1], "cannot be read as a checkpoint"),
        (nn.Linear(2, 2), "cannot be read as a checkpoint"),  # pickled code
    ]
    for content, words in cases:
        torch.save(content, path)
        with pytest.raises(UserError, match=words):
            read_checkpoint(path)


def tenfold(times: int) -> list[Any]:
    """A list of 10^times zeros that takes a few bytes."""
    nested: list[Any] = [0] * 10
    for _ in range(times - 1):
        nested = [nested] * 10
    return nested


UNFOLDING: dict[str, Any] = {
    "a list in a list": tenfold(10),
    "one number a billion times": torch.zeros(1).expand(2**32),
    "one long text a million times": ["x" * 10_000] * 10_000,
}


@pytest.mark.parametrize("bomb", UNFOLDING)
def test_a_small_file_that_unfolds_is_refused(tmp_path: Path, bomb: str) -> None:
    """It would take hours or all memory to go through."""
    torch.save({"format": FORMAT, "sha256": "", "model": UNFOLDING[bomb]}, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 200_000
    with pytest.raises(UnusableCheckpoint, match=r"cannot be read as a checkpoint \((TooLarge|RecursionError)\)"):
        read_checkpoint(tmp_path / "x.pt")


def test_an_archive_that_unfolds_is_refused(tmp_path: Path) -> None:
    """Compressed, or with members that share their bytes: torch writes neither."""
    write_checkpoint(tmp_path / "x.pt", {"model": torch.zeros(1000)})
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as good,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in good.namelist():
            packed.writestr(name, good.read(name))
    assert (tmp_path / "y.pt").stat().st_size < (tmp_path / "x.pt").stat().st_size / 2
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        large = max(archive.infolist(), key=lambda member: member.file_size)
        for n in range(3):
            again = copy(large)
            again.filename = f"{large.filename}{n}"
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    for name in ("x.pt", "y.pt"):
        with pytest.raises(UnusableCheckpoint, match=r"\(BadZipFile\)"):
            read_checkpoint(tmp_path / name)


# falling back ---------------------------------------------------------------------------------------------------------


def test_a_damaged_state_is_replaced_by_the_one_before(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the damaged file would otherwise take the good one's place at the next save."""
    run_dir = root / "runs" / "run"
    latest, previous = run_dir / "latest.pt", run_dir / "previous.pt"
    whole = latest.read_bytes()
    latest.write_bytes(whole[:-1000])
    newest = read_newest(run_dir)
    assert (newest.path, newest.unusable) == (previous, (latest,))
    load_trained(run_dir)
    said = newest.warning
    assert said.startswith(f"{latest}: cannot be read as a checkpoint (")
    assert said.endswith(f"); {previous} is used instead")
    assert f"warning: {said}" in capsys.readouterr().err
    train.main(arguments(root, "--continue_train"))
    assert f"warning: {said}" in capsys.readouterr().out
    assert latest.with_name("latest.pt.damaged").read_bytes() == whole[:-1000]
    assert latest.read_bytes() == whole  # it went on from the one before to the same end
    assert read_newest(run_dir).warning == ""


def test_then_the_newest_epoch_then_nothing(root: Path) -> None:
    run_dir = root / "runs" / "run"
    (run_dir / "latest.pt").unlink()
    (run_dir / "previous.pt").write_bytes(b"")
    newest = read_newest(run_dir)
    assert newest.path == run_dir / "2.pt"
    assert (
        newest.warning
        == f"{run_dir / 'latest.pt'}: no such checkpoint; --epoch takes latest or a saved epoch's "
        + (f"number; {run_dir / '2.pt'} is used instead")
    )
    with pytest.raises(UserError, match="holds a trained run"):
        train.main(arguments(root))
    for path in run_dir.glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(UnusableCheckpoint, match=r"latest\.pt.*previous\.pt.*2\.pt.*1\.pt"):
        train.main(arguments(root, "--continue_train"))
    for path in run_dir.glob("*.pt"):
        path.unlink()
    with pytest.raises(UserError, match=r"nothing to continue, .*latest\.pt does not exist; start the run without it"):
        train.main(arguments(root, "--continue_train"))


def test_what_may_not_be_read_is_not_called_damaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*read: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(torch, "load", denied)
    with pytest.raises(UserError, match=r"latest\.pt: cannot be read \(Permission denied\)") as refused:
        read_newest(root / "runs" / "run")
    assert not isinstance(refused.value, UnusableCheckpoint)


def test_leftovers_of_a_killed_save_are_removed(root: Path) -> None:
    run_dir = root / "runs" / "run"
    (run_dir / "web").mkdir()
    leftovers = [run_dir / "latest.pt.part", run_dir / "web" / "index.html.part"]
    for path in leftovers:
        path.write_bytes(b"half")
    train.main(arguments(root, "--continue_train"))
    assert not any(path.exists() for path in leftovers)


# which stay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_keep_last(tmp_path: Path, keep: int) -> None:
    checkpoints = RunCheckpoints(tmp_path, keep)
    for epoch in (5, 10, 15, 100):
        checkpoints.save((str(epoch), "latest"), {"epoch": epoch}, {"G_AB": nn.Linear(1, 1)})
    stay = [5, 10, 15, 100][-keep:]
    assert {path.stem for path in tmp_path.glob("*.pt")} == {*map(str, stay), "latest", "previous"}
    names = {path.name for path in weights_files(tmp_path)}
    assert names == {weights_name(str(e), "G_AB", s) for e in (*stay, "latest") for s in SUFFIXES}
    assert read_checkpoint(tmp_path / "previous.pt")["epoch"] == 15


def test_what_is_always_kept_counts_beside_the_last(tmp_path: Path) -> None:
    checkpoints = RunCheckpoints(tmp_path, 1, always=[10])
    for epoch in (5, 10, 15, 100):
        checkpoints.save((str(epoch), "latest"), {"epoch": epoch}, {})
    assert {path.stem for path in tmp_path.glob("*.pt")} == {"10", "100", "latest", "previous"}


def test_the_generator_before_its_refinement_stays(tmp_path: Path) -> None:
    """As an epoch of its own, also if the refinement is added later; it is what the finished run had been."""
    write_phantom(tmp_path / "phantom")
    options = ("--pool_size=3", "--save_epoch_freq=100", "--keep_last=1")

    def go(name: str, *more: str) -> Path:
        argv = [f"--name={name}", *options, *more]
        train.main(train_arguments(tmp_path / "phantom", tmp_path / "runs", "cycle_gan", *argv))
        return tmp_path / "runs" / name

    before = load_trained(go("later"))
    assert not (tmp_path / "runs" / "later" / "2.pt").exists() and before.title == "cycle_gan"
    refined = [
        go("later", "--n_epochs_refine=2", "--continue_train"),
        go("at_once", "--n_epochs_refine=2", "--save_epoch_freq=1"),
        (go("often"), go("often", "--n_epochs_refine=2", "--save_epoch_freq=1", "--continue_train"))[-1],
    ]
    for run_dir, kept in zip(refined, ({"2"}, {"2", "4"}, {"2", "4"}), strict=True):
        assert {path.stem for path in run_dir.glob("*.pt")} == {*kept, "latest", "previous"}
        unrefined, whole = load_trained(run_dir, "2"), load_trained(run_dir)
        assert (unrefined.title, whole.title) == ("cycle_gan", "cycle_gan + refinement")
        same = [torch.equal(value, unrefined.state_dict()[name]) for name, value in before.state_dict().items()]
        assert all(same) and not torch.equal(next(whole.ema_G_AB.parameters()), next(before.ema_G_AB.parameters()))


def test_a_fresh_start_leaves_nothing_of_the_earlier_run(root: Path) -> None:
    run_dir = root / "runs" / "run"
    (run_dir / "latest.pt.damaged").touch()
    train.main(arguments(root, "--overwrite", "--save_epoch_freq=100", "--seed=3", "--save_latest_freq=10000"))
    assert [path.name for path in (*run_dir.glob("*.pt"), *run_dir.glob("*.damaged"))] == ["latest.pt"]
    assert {path.name for path in weights_files(run_dir)} == {"latest_net_LSC.pth", "latest_net_LSC.safetensors"}


# weights alone --------------------------------------------------------------------------------------------------------


def test_weights_alone_are_those_of_the_checkpoint(root: Path) -> None:
    run_dir = root / "runs" / "run"
    for epoch in ("latest", "1"):
        content, network = read_checkpoint(checkpoint_path(run_dir, epoch)), load_trained(run_dir, epoch).lsc.network
        pth, safe = (run_dir / weights_name(epoch, "LSC", suffix) for suffix in SUFFIXES)
        alone = torch.load(pth, weights_only=True)
        with safetensors.safe_open(safe, "pt") as file:
            assert file.metadata() == {"format": "pt", "network": "LSC", "checkpoint_sha256": content["sha256"]}
            for name, tensor in network.state_dict().items():
                assert torch.equal(file.get_tensor(name), tensor)
                assert torch.equal(alone[name], tensor)
        for path in (pth, safe):
            other = load_trained(run_dir, "2").lsc.network
            load_weights(other, str(path), "LSC")
            assert all(map(torch.equal, other.state_dict().values(), network.state_dict().values()))


def test_weights_that_a_kill_left_behind_are_mended(root: Path) -> None:
    run_dir = root / "runs" / "run"
    pth, safe = (run_dir / weights_name("latest", "LSC", suffix) for suffix in SUFFIXES)
    whole = pth.read_bytes(), safetensors.torch.load(safe.read_bytes())
    for path in (pth, safe):
        path.write_bytes(path.with_name(path.name.replace("latest", "1")).read_bytes())
    train.main(arguments(root, "--continue_train"))
    assert pth.read_bytes() == whole[0]
    assert all(
        torch.equal(tensor, whole[1][name]) for name, tensor in safetensors.torch.load(safe.read_bytes()).items()
    )


def test_a_spoiled_weights_file_is_refused(root: Path) -> None:
    network = load_trained(root / "runs" / "run").lsc.network
    for suffix in SUFFIXES:
        path = root / f"spoiled{suffix}"
        path.write_bytes(b"spoiled" * 20)
        with pytest.raises(UserError, match=f"--lsc_weights {path}: not weights of this LSC network"):
            load_weights(network, str(path), "LSC")


# a run's options ------------------------------------------------------------------------------------------------------

SPOILED = ("[]", "{", "{}", '"', "[" * 100_000, "\x00", '{"mask_ratio": NaN}', "null", '{"model": []}')
CHANGED = {
    "model": ("os.system", "--model is 'os.system', allowed are pta_hybrid"),
    "lsc_features": ("many", "--lsc_features is 'many', it must be a whole number"),
    "lsc_blocks": (True, "--lsc_blocks is 'True', it must be a whole number"),
    "rotate_ratio": ([0.5], "--rotate_ratio is '[0.5]', it must be a number"),
    "mask_ratio": (2, "--mask_ratio is 2, it must be between 0 and 1"),
    "image_size": ([32, 10**9], "image_size is [32, 1000000000]"),
    "direction": ("../..", "--direction is '../..'"),
    "seed": ({}, "--seed is '{}', it must be a whole number"),
    "load_size": (None, "--load_size is 'None', it must be a whole number"),
}


def test_options_that_are_none_are_refused(root: Path) -> None:
    path = root / "runs" / "run" / "options.json"
    for text in SPOILED:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"options\.json"):
            load_trained(path.parent)
        with pytest.raises(UserError, match=r"options\.json|trained with other options"):
            train.main(arguments(root, "--continue_train"))


@pytest.mark.parametrize("name", CHANGED)
def test_an_option_of_another_kind_is_refused(root: Path, name: str) -> None:
    path = root / "runs" / "run" / "options.json"
    value, words = CHANGED[name]
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UserError) as refused:
        load_trained(path.parent)
    assert str(refused.value).startswith(f"{path}: {words}")


def test_options_of_another_model_are_refused_before_it_takes_memory(root: Path) -> None:
    path = root / "runs" / "run" / "options.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lsc_features": 256}))  # 5 GB
    with pytest.raises(UserError, match=r"latest\.pt: not weights of the model that .*options\.json describes"):
        load_trained(path.parent)


def test_a_lost_run_json_stops_nothing(root: Path) -> None:
    run_info = root / "runs" / "run" / "run.json"
    for text in ("", "[]", "{"):
        run_info.write_text(text)
        train.main(arguments(root, "--continue_train"))
        assert json.loads(run_info.read_text())["seed"] == 0


# folders that cannot be written ---------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_named(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(UserError, match=r"--checkpoints_dir .*file: .* cannot be written \(Not a directory\)"):
        train.main([a.replace(str(root / "runs"), str(root / "file")) for a in arguments(root)])
    (root / "runs" / "run" / "run.lock").unlink()
    (root / "runs" / "run" / "run.lock").mkdir()
    with pytest.raises(UserError, match=r"run\.lock cannot be written \(Is a directory\)"):
        train.main(arguments(root, "--continue_train"))
