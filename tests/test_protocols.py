"""`--protocol`: scores by published definitions, against their own code's libraries and against plain formulas."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_heads import write_heads
from made_up_results import made_up_subject
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from test_evaluation import TwoFeatures
from test_testing import assert_explained, make_run, run_test
from torch.nn import functional as F
from torchvision.models import alexnet

from data.folder.slices import read_image
from evaluation.metrics.features import frechet_distance
from evaluation.metrics.inception import inception_score
from evaluation.metrics.lpips import LPIPS, read_heads
from evaluation.protocols import PROTOCOLS, definitions_of, make_protocol, pta
from evaluation.record import Record
from evaluation.subjects import SubjectSlices
from options.test_options import PROTOCOLS as OFFERED
from util.errors import UserError


@pytest.fixture
def volume() -> SubjectSlices:
    """A smooth head of nine slices with its truth."""
    found = made_up_subject("sub-1", 3, n=9)
    assert found.truth is not None
    return replace(found, truth=(0.9 * smooth(found.truth)).astype(np.float32))


def smooth(slices: np.ndarray) -> np.ndarray:
    return F.avg_pool2d(torch.from_numpy(slices)[:, None], 3, stride=1, padding=1)[:, 0].numpy()


def scored(name: str, volumes: dict[str, tuple[np.ndarray, SubjectSlices]], *, inception=None) -> Record:  # type: ignore[no-untyped-def]
    """The record of row fake_B alone."""
    protocol, record = make_protocol(name, inception, None, seed=0), Record()
    parts = {subject: protocol.part(slices, volume) for subject, (slices, volume) in volumes.items()}
    real = {subject: protocol.real(volume.truth) for subject, (_, volume) in volumes.items()}
    protocol.summarise(record, {"fake_B": parts, "real_B": real})
    return record


def row_of(record: Record) -> dict:
    return record.tree["protocol"]["scores"]["fake_B"]


def test_the_command_line_offers_what_there_is() -> None:
    assert tuple(PROTOCOLS) == OFFERED
    for name in PROTOCOLS:
        protocol = make_protocol(name, None, None, seed=0)
        assert set(protocol.measures) == set(protocol.definitions)
        assert {f"protocol.{measure}" for measure in protocol.measures} < set(definitions_of(protocol))


def test_ulf_enc_is_the_challenges_formula(volume: SubjectSlices) -> None:
    fake = np.clip(volume.image * 0.8 + 0.1, 0, 1)
    mask = volume.truth_mask.astype(np.uint8)
    p, t = ((x - x.min()) / (x.max() - x.min()) * mask for x in (fake.astype(float), volume.truth.astype(float)))
    _, similar = structural_similarity(p, t, data_range=1.0, full=True)
    expected = {
        "ssim": np.sum(similar * mask) / mask.sum(),
        "psnr": np.sum(10 * np.log10(1 / ((p - t) ** 2 + 1e-8)) * mask) / mask.sum(),
        "mae": np.sum(np.abs(p - t) * mask) / mask.sum(),
        "nmse": np.sum((p - t) ** 2 / np.mean(t[mask == 1] ** 2) * mask) / mask.sum(),
    }
    found = row_of(scored("ulf_enc", {"sub-1": (fake, volume)}))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    parts = 0.1 * (expected["psnr"] / 32 + (1 - expected["mae"]) + (1 - expected["nmse"]))
    assert found["score"] == pytest.approx(0.7 * expected["ssim"] + parts)


def test_ulf_enc_knows_its_limits(volume: SubjectSlices) -> None:
    dark = replace(volume, truth=volume.truth**8)
    assert row_of(scored("ulf_enc", {"sub-1": (1 - dark.truth, dark)}))["nmse"] == 1  # at most
    few = replace(volume, truth=volume.truth[:5], truth_mask=volume.truth_mask[:5])
    record = scored("ulf_enc", {"sub-1": (volume.image[:5], few)})
    assert row_of(record)["ssim"] is None and row_of(record)["score"] is None and row_of(record)["mae"] > 0
    assert "fewer than 7 slices" in str(record.reason("protocol", "scores", "fake_B", "ssim"))
    flat = row_of(scored("ulf_enc", {"sub-1": (np.zeros_like(volume.image), volume)}))
    assert set(flat.values()) == {None}


def test_mrixfields_is_the_challenges_formula(volume: SubjectSlices) -> None:
    truth = volume.truth.copy()
    truth[0] = 0.25  # of one intensity: not scored by SSIM
    other = replace(volume, truth=truth[::-1].copy())
    volumes = {"a": (volume.image, replace(volume, truth=truth)), "b": (volume.image, other)}
    expected: dict[str, list[float]] = {"nrmse": [], "ssim": []}
    for fake, each in volumes.values():
        most = np.percentile(each.truth, 99.5)
        t = np.clip(each.truth, 0, most).astype(float) / most
        expected["nrmse"].append(np.linalg.norm(fake - t) / np.linalg.norm(t))
        planes = [i for i in range(len(t)) if np.ptp(t[i]) > 0]
        values = [structural_similarity(fake[i].astype(float), t[i], data_range=np.ptp(t)) for i in planes]
        assert len(planes) == len(t) - 1
        expected["ssim"].append(np.mean(values))
    record = scored("mrixfields", volumes)
    found = row_of(record)
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values)) and found[f"{name}_sd"] == pytest.approx(np.std(values))
    assert found["lpips"] is found["dice"] is found["volume"] is None
    assert "--lpips_weights" in str(record.reason("protocol", "scores", "fake_B", "lpips"))
    assert "SynthSeg" in str(record.reason("protocol", "scores", "fake_B", "dice"))


def similar(p: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its factor of contrast and structure in every pixel of a slice, with a Gaussian window of 11 px."""
    mean_p, mean_t, pp, tt, pt = (
        gaussian_filter(x, 1.5, truncate=3.5, mode="mirror") for x in (p, t, p * p, t * t, p * t)
    )
    contrast = (2 * (pt - mean_p * mean_t) + 0.03**2) / (pp - mean_p**2 + tt - mean_t**2 + 0.03**2)
    return contrast * (2 * mean_p * mean_t + 0.01**2) / (mean_p**2 + mean_t**2 + 0.01**2), contrast


def similar_at_all_scales(p: np.ndarray, t: np.ndarray) -> float:
    """MS-SSIM of two slices as torchmetrics has it: the rim counts at the last scale alone."""
    score = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        score *= max(similar(p, t)[1][5:-5, 5:-5].mean(), 0) ** weight
        p, t = (x.reshape(len(x) // 2, 2, -1, 2).mean((1, 3)) for x in (p, t))
    return float(score * max(similar(p, t)[0].mean(), 0) ** 0.1333)


def test_pta_compares_slices_with_their_truth(volume: SubjectSlices) -> None:
    pairs = list(zip(*(np.round(x.astype(float) * 255) / 255 for x in (volume.image, volume.truth)), strict=True))
    psnr = [-10 * np.log10(np.mean((p - t) ** 2)) for p, t in pairs]
    ssim = [similar(p, t)[0].mean() for p, t in pairs]
    found = row_of(scored("pta", {"sub-1": (volume.image, volume)}))
    for name, values in (("psnr", psnr), ("ssim", ssim)):
        assert found[name] == pytest.approx(np.mean(values), rel=1e-4)
        assert found[f"{name}_sd"] == pytest.approx(np.std(values), rel=1e-3)


def enlarged(image: np.ndarray) -> np.ndarray:
    """(224, 224) in [0, 1]: a slice as the published code reads the picture that was saved of it."""
    picture = Image.fromarray(np.round(image * 255).astype(np.uint8)).convert("RGB").resize((224, 224))
    return np.asarray(picture)[..., 1] / 255


def test_pta_compares_neighbours_in_the_order_of_file_names() -> None:
    subjects = {
        name: made_up_subject(name, seed, n=n) for seed, (name, n) in enumerate({"b": 4, "a": 3, "c": 5}.items())
    }
    shuffled = {name: (one.image, one) for name, one in subjects.items()}
    turned = subjects["c"]
    places = [3, 0, 4, 2, 1]  # slices come in the order of the volume; names may tell another one
    shuffled["c"] = (turned.image[places], replace(turned, stems=[turned.stems[i] for i in places], truth=None))
    every = [enlarged(plane) for name in sorted(subjects) for plane in subjects[name].image]
    size = len(every) // 5
    batches = [every[i * size : (i + 1) * size] for i in range(5)]
    expected = [similar_at_all_scales(x, y) for batch in batches for x, y in pairwise(batch)]
    protocol = make_protocol("pta", None, None, seed=0)
    parts = {name: protocol.part(slices, one) for name, (slices, one) in shuffled.items()}
    found = pta.neighbours(parts)
    assert len(expected) == 5 and found == pytest.approx(expected, abs=2e-4)
    record = Record()
    protocol.summarise(record, {"fake_B": parts})
    assert row_of(record)["ms_ssim"] == pytest.approx(np.mean(expected), abs=2e-4)
    assert row_of(record)["ms_ssim_sd"] == pytest.approx(np.std(expected), abs=2e-4)


def test_pta_needs_slices_for_its_batches_and_sizes_that_its_code_can_take() -> None:
    protocol = make_protocol("pta", None, None, seed=0)
    few = {"a": protocol.part(made_up_subject("a", 0).image, made_up_subject("a", 0))}
    assert pta.neighbours(few) == "fewer than 10 slices, two in each of 5 batches"
    large = np.random.default_rng(0).random((3, 170, 200)).astype(np.float32)
    between = {"a": protocol.part(large, replace(made_up_subject("a", 0, n=3), image=large, truth=None))}
    assert pta.neighbours(between) == "slices of 160 to 175 px per side are too small for MS-SSIM"


def test_pta_takes_all_slices_for_the_inception_measures() -> None:
    network = TwoFeatures()
    volumes = {name: made_up_subject(name, seed, n=12) for seed, name in enumerate("ab")}
    record = scored("pta", {name: (one.image, one) for name, one in volumes.items()}, inception=network)
    fake, real = (
        network(torch.from_numpy(np.stack([enlarged(x)[None] for one in volumes.values() for x in getattr(one, kind)])))
        for kind in ("image", "truth")
    )
    assert row_of(record)["fid"] == pytest.approx(frechet_distance(fake.numpy(), real.numpy()), rel=1e-4)
    assert row_of(record)["is"] == pytest.approx(inception_score(network.logits(fake), seed=0), rel=1e-4)
    without = make_protocol("pta", network, None, seed=0)
    few = {name: replace(one, stems=one.stems[:4], truth=None) for name, one in volumes.items()}
    parts = {name: without.part(one.image[:4], one) for name, one in few.items()}
    found = without.scores(parts, {})
    assert "no real high-field slices" in str(found["fid"]) and found["is"] == "8 slices, need at least 20"


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("data"))


def test_a_test_with_a_protocol_adds_a_section_and_changes_no_other(
    dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    folder, plain = run_test(dataroot, tmp_path, "cyc", "--no_baselines")
    assert "protocol" not in plain and "By the definitions of" not in (folder / "index.html").read_text()
    for name, protocol in PROTOCOLS.items():
        _, metrics = run_test(dataroot, tmp_path, "cyc", "--no_baselines", "--protocol", name)
        section = metrics["protocol"]
        assert {path: metrics[path] for path in ("paired", "unpaired", "by_person", "verdict")} == {
            path: plain[path] for path in ("paired", "unpaired", "by_person", "verdict")
        }
        assert section["name"] == name and list(section["scores"]) == ["fake_B"]
        assert {f"protocol.{measure}" for measure in section["scores"]["fake_B"]} <= set(metrics["definitions"])
        assert_explained(metrics)
        heading = f"By the definitions of {protocol.title}"
        assert heading in (folder / "index.html").read_text()
        assert heading in " ".join(capsys.readouterr().out.split())


def test_baselines_are_scored_beside_the_synthesis(dataroot: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "cyc", "cycle_gan")
    _, metrics = run_test(dataroot, tmp_path, "cyc", "--protocol", "ulf_enc")
    assert list(metrics["protocol"]["scores"]) == ["fake_B", "identity", "histogram", "classical"]
    assert all(scores["mae"] > 0 for scores in metrics["protocol"]["scores"].values())


def test_lpips_is_measured_where_alexnet_is_given(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = LPIPS(alexnet(weights=None).state_dict(), read_heads())
    monkeypatch.setattr("programs.testing.open_lpips", lambda given, device: network)
    make_run(tmp_path / "cyc", "cycle_gan")
    folder, metrics = run_test(dataroot, tmp_path, "cyc", "--no_baselines", "--protocol", "mrixfields")
    ours, theirs = metrics["paired"]["fake_B"]["lpips"]["mean"], metrics["protocol"]["scores"]["fake_B"]["lpips"]
    pictures = sorted((folder / "images").glob("sub-1_*_fake_B.png"))
    fake, truth = (
        np.stack([read_image(path.parent / path.name.replace("fake_B", kind)) for path in pictures])
        for kind in ("fake_B", "truth")
    )
    with (folder / "metrics.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["lpips"]) == pytest.approx(network.slices(fake, truth).mean(), rel=1e-3)
    assert ours > 0 and theirs > 0 and "lpips" in (folder / "index.html").read_text()
    assert_explained(metrics)


def test_without_a_truth_only_pta_scores(dataroot: Path, tmp_path: Path) -> None:
    root = tmp_path / "scans"
    for name in ("testA", "testB"):
        (root / name).mkdir(parents=True)
        for path in (dataroot / name).glob("*.png"):
            (root / name / path.name).write_bytes(path.read_bytes())
    make_run(tmp_path / "cyc", "cycle_gan")
    for name in ("ulf_enc", "mrixfields"):
        with pytest.raises(
            UserError, match=f"--protocol {name} compares with the truth, and there is no .*testA_truth"
        ):
            run_test(root, tmp_path, "cyc", "--protocol", name)
    assert not (tmp_path / "results").exists()
    _, metrics = run_test(root, tmp_path, "cyc", "--protocol", "pta")
    found = metrics["protocol"]["scores"]["fake_B"]
    assert found["psnr"] is None and found["ms_ssim"] is not None
    assert_explained(metrics)
