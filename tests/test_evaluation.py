"""Opponents, level errors, restoration, record and report on small made-up heads."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_heads import N_SLICES, SHAPE, write_domain, write_heads
from msgspec import structs
from scipy.ndimage import gaussian_filter
from torch import Tensor

from data.folder.manifest import Manifest, write_manifest
from data.folder.slice_folder import SliceFolder
from data.folder.slices import slice_name, write_image
from evaluation import level_error, restoration, unpaired
from evaluation.evaluate import DEFINITIONS
from evaluation.folders import open_test_data
from evaluation.page.viewer import Listing
from evaluation.paired import MEASURES, PairedTable
from evaluation.people import people_in, put_people
from evaluation.pictures import error_map
from evaluation.predict import Device, MirrorAverage, NetworkGrid, synthesise
from evaluation.record import Record, write_csv, write_json
from evaluation.report import write_report
from evaluation.slice_scores import SliceScores
from evaluation.subjects import SubjectSlices, read_subject
from evaluation.verdict import VERDICT_MEASURES, put_verdict
from models.lsc_model import LSC
from models.lsc_options import LSCTraining
from util.errors import UserError
from util.spread import evenly_spaced

GRID = NetworkGrid(preprocess="resize", load_size=32)
CPU = Device(torch.device("cpu"), batch_size=3)


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("data"))


@pytest.fixture
def volume(dataroot: Path) -> SubjectSlices:
    data = open_test_data(dataroot, "test", table_in=dataroot)
    return read_subject(data.source, data.subjects["sub-2"], with_truth=True)


class Brighten:
    """A model of three lines: low-field intensities divided by 0.6, and a note of the batches it saw."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def synthesise(self, real_A: Tensor) -> Tensor:
        self.batches.append(len(real_A))
        return ((real_A + 1) / 0.6 - 1).clamp(-1, 1)


class Restorer:
    """LSC with a restoration that halves the error to known answers (N, 1, h, w)."""

    def __init__(self, answers: Tensor) -> None:
        self.answers = answers

    def corrupt(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return LSC(LSCTraining(lsc_blocks=8)).corrupt(x, generator)

    def restore(self, corrupted: Tensor, masked: Tensor) -> Tensor:
        answers, self.answers = self.answers[: len(corrupted)], self.answers[len(corrupted) :]
        return (corrupted + answers) / 2


def test_subject_is_read_in_order_with_truth(volume: SubjectSlices) -> None:
    assert volume.image.shape == volume.mask.shape == volume.truth.shape == (N_SLICES, *SHAPE)
    assert volume.index.tolist() == [2, 3, 4, 5, 6]
    assert volume.level_mm[0] == pytest.approx(5)
    assert (volume.visible[~volume.mask] == 0).all() and volume.image[~volume.mask].max() > 0


def test_data_folder_mistakes_are_told_before_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="testA"):
        (tmp_path / "trainB").mkdir()
        open_test_data(tmp_path, "test", table_in=tmp_path)
    (tmp_path / "trainB").rmdir()
    write_domain(tmp_path, "test", "A", ["sub-1"], truth=True)
    (tmp_path / "testA_truth" / slice_name("sub-1", 3)).unlink()
    with pytest.raises(UserError, match=r"no truth sub-1_003\.png in .*testA_truth"):
        open_test_data(tmp_path, "test", table_in=tmp_path)


def test_truth_of_another_size_is_refused(tmp_path: Path) -> None:
    write_domain(tmp_path, "test", "A", ["sub-1"], truth=True)
    for path in (tmp_path / "testA_truth").iterdir():
        write_image(path, np.zeros((10, 10), dtype=np.float32), 8)
    with pytest.raises(UserError, match="10x10 pixels, its slice has 44x40"):
        open_test_data(tmp_path, "test", table_in=tmp_path)


def test_synthesis_does_not_depend_on_batch_size(volume: SubjectSlices) -> None:
    model = Brighten()
    small = synthesise(model, volume, GRID, CPU)
    large = synthesise(model, volume, GRID, replace(CPU, batch_size=64))
    assert model.batches == [3, 2, 5]
    np.testing.assert_array_equal(small, large)
    assert small.shape == volume.image.shape and small.dtype == np.float32
    assert small.min() >= 0 and small.max() <= 1


def test_the_mirror_average_turns_the_mirrored_synthesis_back() -> None:
    class Lopsided:
        """Adds a ramp from left to right, as no network should."""

        def synthesise(self, real_A: Tensor) -> Tensor:
            return real_A + torch.linspace(-0.1, 0.1, real_A.shape[-1])

    image = torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    assert torch.allclose(MirrorAverage(Lopsided()).synthesise(image), image, atol=1e-6)


def test_synthesis_never_sees_truth_or_background(volume: SubjectSlices) -> None:
    plain = synthesise(Brighten(), volume, GRID, CPU)
    other = replace(volume, truth=None, truth_mask=None, image=np.where(volume.mask, volume.image, np.float32(0.9)))
    inner = np.zeros(SHAPE, dtype=bool)
    inner[15:29, 15:25] = True
    np.testing.assert_allclose(synthesise(Brighten(), other, GRID, CPU)[:, inner], plain[:, inner], atol=1e-6)


def test_paired_table_gives_means_and_no_narrow_intervals() -> None:
    table, record = PairedTable(), Record()
    for i, subject in enumerate("abc"):
        table.add("fake_B", subject, dict.fromkeys(MEASURES, float(i)) | {"ms_ssim": None})
    table.summarise(record, {name: name for name in "abc"})
    assert record.tree["paired"]["fake_B"]["psnr"] == {"mean": 1.0, "ci95": None}
    assert record.tree["paired"]["fake_B"]["ms_ssim"] == {"mean": None, "ci95": None}
    content = record.as_json(DEFINITIONS)
    assert "12" in content["why_null"]["ci95"] and "176" in content["why_null"]["ms_ssim"]


Means = tuple[float | None, float | None, float | None]  # psnr_fit, psnr and ssim


def verdict_of(**rows: Means) -> tuple[str | None, str | None]:
    """The verdict, and why there is none, for the means of rows."""
    record = Record()
    for row, means in rows.items():
        for measure, mean in zip(VERDICT_MEASURES, means, strict=True):
            if mean is None:
                record.null("paired", row, measure, leaves=("mean", "ci95"), why="too small")
            else:
                record.put("paired", row, measure, "mean", value=mean)
    put_verdict(record)
    return record.tree["verdict"], record.reason("verdict")


def test_the_verdict_says_what_fake_B_loses_to_and_in_what() -> None:
    ours, identity = (25.0, 24.0, 0.875), (21.0, 20.0, 0.75)
    won = ("fake_B beats every baseline in psnr_fit, psnr and ssim.", None)
    assert verdict_of(fake_B=ours, identity=identity, classical=(24.5, 23.5, 0.85)) == won
    text, _ = verdict_of(fake_B=ours, identity=identity, histogram=(26.0, 22.0, 0.8), classical=(24.5, 24.0, 0.9))
    assert text == (
        "fake_B does not beat every baseline in psnr_fit, psnr and ssim: it loses to histogram in psnr_fit (25 against "
        "26); to classical in psnr (24 against 24) and ssim (0.875 against 0.9)."
    )
    small, none = (25.0, 24.0, None), (None, None, None)
    text, _ = verdict_of(fake_B=small, identity=(21.0, 20.0, None), classical=none)
    assert text == "fake_B beats every baseline in psnr_fit and psnr; ssim could not be measured."
    assert verdict_of(fake_B=ours, identity=none) == (None, "no baseline to compare with: too small")
    record = Record()
    record.null("paired", why="no truth")
    put_verdict(record)
    assert record.as_json({})["verdict"] is None and record.reason("verdict") == "no truth"


def test_every_person_stands_apart_and_the_verdict_counts_them() -> None:
    """Two subjects of one person, better on average, and one of another, for whom fake_B is worse."""
    table, record = PairedTable(), Record()
    empty = dict.fromkeys(MEASURES)
    for subject, ours, theirs in (("s1", 26.0, 22.0), ("s2", 25.0, 23.0), ("s3", 20.0, 21.0)):
        for row, value in (("fake_B", ours), ("identity", 15.0), ("classical", theirs)):
            table.add(row, subject, {**empty, "psnr_fit": value, "psnr": value - 1})
    people = {"s1": "ann", "s2": "ann", "s3": "bob"}
    table.summarise(record, people)
    put_people(record, table.rows, people)
    put_verdict(record)
    found = record.tree["by_person"]
    assert found["n_people"] == 2
    assert found["n_better"] == {
        "identity": {"psnr_fit": 2, "psnr": 2},
        "classical": {"psnr_fit": 1, "psnr": 1},
    }
    assert found["people"]["ann"]["n_subjects"] == 2
    assert found["people"]["ann"]["psnr_fit"] == {
        "fake_B": 25.5, "identity": 15.0, "classical": 22.5, "fake_B - classical": 3.0,
    }  # fmt: skip
    assert found["people"]["bob"]["psnr"]["fake_B - classical"] == -1
    assert record.tree["verdict"] == (
        "fake_B beats every baseline in psnr_fit and psnr; ssim could not be measured. Of 2 people it is better than "
        "classical, the strongest baseline, for 1 in psnr_fit and 1 in psnr."
    )
    record.put("paired", "identity", "psnr", "mean", value=30.0)
    put_verdict(record)
    assert record.tree["verdict"].endswith(
        "than the strongest baseline for 1 in psnr_fit (classical) and 2 in psnr (identity)."
    )
    nobody = Record()
    put_people(nobody, {}, {})
    assert nobody.tree == {"by_person": None} and nobody.reason("by_person")


def test_people_are_those_of_the_manifest_else_of_the_names(tmp_path: Path) -> None:
    names = ["sub-1_T2w", "sub-1_ses-2_T2w", "x", "y"]
    entries = write_domain(tmp_path, "test", "A", names)
    entries[2:] = [structs.replace(entry, person="zoe") for entry in entries[2:]]
    write_manifest(tmp_path, Manifest("nifti", entries))
    folder = SliceFolder(tmp_path, "test", "A")
    assert people_in(folder, folder.subjects) == {
        "sub-1_T2w": "sub-1", "sub-1_ses-2_T2w": "sub-1", "x": "zoe", "y": "zoe",
    }  # fmt: skip


def test_paired_interval_with_twelve_subjects() -> None:
    table, record = PairedTable(), Record()
    for i in range(12):
        table.add("fake_B", f"s{i}", dict.fromkeys(MEASURES, float(i)))
    table.summarise(record, {f"s{i}": f"s{i}" for i in range(12)})
    low, high = record.tree["paired"]["fake_B"]["psnr"]["ci95"]
    assert 3 < low < 5.5 < high < 8


def test_record_refuses_unexplained_nulls_and_infinities(tmp_path: Path) -> None:
    record = Record()
    record.put("a", "x", value=float("inf"))
    record.null("b", "x", why="absent")
    assert record.tree == {"a": {"x": None}, "b": {"x": None}}
    assert record.why_null() == {"a.x": "the value is not a finite number", "b.x": "absent"}
    with pytest.raises(ValueError, match="reason"):
        record.put("c", value=None)
    record.tree["d"] = None
    with pytest.raises(AssertionError, match="d"):
        record.as_json({})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"x": float("nan")})


def test_csv_has_a_line_per_subject_and_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "m.csv", {"fake_B": {"s, 1": {"psnr": 20.5}}, "identity": {"s, 1": {"psnr": None}}}, ("psnr",))
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["subject", "row", "psnr"], ["s, 1", "fake_B", "20.5"], ["s, 1", "identity", ""]]


def levelled(subject: str, offset: int, embedding: np.ndarray) -> level_error.LevelledSlices:
    """Four slices 10 mm apart, the first `offset` slices above the template's origin."""
    n = len(embedding)
    return level_error.LevelledSlices(
        subject=subject,
        embedding=embedding.astype(np.float32),
        thumbnail=np.eye(n, dtype=np.float32)[::-1],
        p=np.linspace(0, 1, n, dtype=np.float32),
        index=np.arange(n),
        level_mm=10 * (np.arange(n) + offset).astype(np.float32),
    )


def test_level_errors_by_hand() -> None:
    a = levelled("a", 0, np.eye(5)[:4])
    b = levelled("b", 1, np.eye(5)[1:])  # embeddings say the truth: a's slice 1 is b's slice 0
    own = levelled("a", 0, np.eye(5)[:4])
    errors = level_error.level_errors([a], [b, own], seed=0)
    assert errors["sgp"].tolist() == [10, 0, 0, 0]  # a's slice 0 lies outside b; its own head is never used
    assert errors["same_p"].tolist() == errors["same_index"].tolist() == [10, 10, 10, 10]
    assert errors["thumbnail"].shape == errors["random"].shape == (4,)
    assert level_error.level_errors([a], [own], seed=0) is None


def test_thumbnails_ignore_brightness_and_contrast() -> None:
    images = np.random.default_rng(0).random((2, 48, 48)).astype(np.float32)
    thumbnail = level_error.thumbnails(images)
    assert thumbnail.shape == (2, 576)
    np.testing.assert_allclose(level_error.thumbnails(0.5 * images + 0.2), thumbnail, atol=1e-5)
    np.testing.assert_allclose((thumbnail**2).sum(1), 1, rtol=1e-5)


def smooth_square() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:30, :30] / 30
    masked = np.zeros((30, 30), dtype=bool)
    masked[10:13, 10:13] = masked[20:23, 5:8] = True
    return 0.3 * x + 0.5 * y, masked


@pytest.mark.parametrize("name", restoration.FILLINGS)
def test_filling_restores_a_ramp_and_leaves_the_rest(name: str) -> None:
    image, masked = smooth_square()
    filled = restoration.FILLINGS[name](np.where(masked, 0, image), masked)
    np.testing.assert_array_equal(filled[~masked], image[~masked])
    assert np.abs(filled - image)[masked].max() < (1e-3 if name == "biharmonic" else 0.06)


def test_median_filling_is_robust_and_never_empty() -> None:
    image = np.full((20, 20), 0.5)
    image[8, 8] = 1.0
    masked = np.zeros((20, 20), dtype=bool)
    masked[9:11, 9:11] = True
    assert (restoration.median_fill(image, masked, radius=3)[masked] == 0.5).all()
    masked[:] = True
    masked[0, 0] = False
    assert np.isfinite(restoration.median_fill(image, masked, radius=2)).all()


def test_restoration_scores_lsc_beside_filters(dataroot: Path) -> None:
    folder = SliceFolder(dataroot, "test", "B")
    inputs, heads = zip(*(GRID.tensor(folder.image(i)[None], folder.mask(i)[None]) for i in range(4)), strict=True)
    record = Record()
    solve = restoration.untrained_solver(LSCTraining(lsc_blocks=8))
    made = [
        restoration.Restoration(Restorer(torch.cat(inputs)), inputs, heads, CPU, seed=5, solve=solve) for _ in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        restoration.summarise(record, made[0], made[1], pool)
    scores = record.tree["lsc"]["psnr"]
    assert scores["restored"] - scores["corrupted"] == pytest.approx(20 * np.log10(2), abs=0.01)
    assert scores["corrupted"] < scores["unrotated"] < scores["solver"] <= scores["best_filter"]
    assert scores["solver"] == record.tree["lsc"]["filter_psnr"]["biharmonic"]
    assert scores["best_filter"] == max(record.tree["lsc"]["filter_psnr"].values())
    assert scores["memorised_db"] == 0  # the same slices with the same seed
    other = restoration.Restoration(Restorer(torch.cat(inputs)), inputs, heads, CPU, seed=6)
    assert other.psnr()["corrupted"] != scores["corrupted"]


def test_without_turned_blocks_there_is_nothing_to_solve(dataroot: Path) -> None:
    assert restoration.untrained_solver(LSCTraining(rotate_ratio=0.0)) is None
    folder = SliceFolder(dataroot, "test", "B")
    inputs, heads = GRID.tensor(folder.image(0)[None], folder.mask(0)[None])
    scores = restoration.Restoration(Restorer(inputs), [inputs], [heads], CPU, seed=5).psnr()
    assert scores["unrotated"] == scores["corrupted"]


def test_evenly_spaced() -> None:
    assert evenly_spaced(3, 64) == [0, 1, 2]
    assert evenly_spaced(101, 3) == [0, 50, 100]
    assert evenly_spaced(0, 3) == []


def embedded(n_subjects: int, shift: float, seed: int) -> tuple[list[str], np.ndarray]:
    """Twenty unit vectors a subject around a direction that `shift` turns away."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.3, (20 * n_subjects, 6)) + np.array([1, shift, 0, 0, 0, 0])
    return [f"s{i // 20}" for i in range(len(x))], x / np.linalg.norm(x, axis=1, keepdims=True)


def test_distances_grow_with_difference_and_real_is_near_zero() -> None:
    sets = {"fake_B": embedded(6, 0.3, 0), "identity": embedded(6, 1.5, 1), "real_B": embedded(6, 0, 2)}
    found = unpaired.distances(sets, unpaired.IN_EMBEDDING["kd_slice"], seed=0)
    assert all(len(values) == unpaired.DRAWS for values in found.values())
    real, fake, identity = (np.mean(found[row]) for row in ("real_B", "fake_B", "identity"))
    assert abs(real) < fake < identity
    sizes = []

    def measure(x: np.ndarray, y: np.ndarray) -> float:
        sizes.append((len(x), len(y)))
        return 0.0

    unpaired.distances(sets, unpaired.Distance(measure), seed=0)
    assert set(sizes) == {(60, 60)}  # equal N, half of the people on either side
    assert unpaired.distances(sets, unpaired.Distance(measure, most=50), seed=0) and sizes[-1] == (50, 50)
    assert unpaired.distances({row: embedded(1, 0, 0) for row in sets}, unpaired.Distance(measure), seed=0) is None


def test_no_distance_compares_a_person_with_himself() -> None:
    """Two scans of each person: slices of the reference's people are in no row's set."""
    people = [f"p{i // 40}" for i in range(240)]
    marks = np.arange(240)[:, None].repeat(2, 1).astype(np.float64)
    seen = []

    def measure(x: np.ndarray, y: np.ndarray) -> float:
        seen.append({people[int(i)] for i in x[:, 0]} & {people[int(i)] for i in y[:, 0]})
        return 0.0

    unpaired.distances(dict.fromkeys(unpaired.ROWS, (people, marks)), unpaired.Distance(measure), seed=0)
    assert seen == [set()] * 3 * unpaired.DRAWS


class TwoFeatures:
    """Stands for the Inception network: mean and spread of an image as features, their double as logits."""

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], dim=1)

    def logits(self, features: Tensor) -> Tensor:
        return 2 * features


def test_inception_measures_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    table, record = unpaired.UnpairedTable(TwoFeatures()), Record()
    for i in range(4):
        real = rng.random((8, 12, 12)).astype(np.float32)
        for row, slices in (("real_B", real), ("fake_B", 0.9 * real), ("identity", 0.5 * real)):
            table.add(row, f"s{i}", slices, np.ones(slices.shape, dtype=bool), None)
    names = {f"s{i}": f"s{i}" for i in range(4)}
    table.summarise(record, dict.fromkeys(unpaired.ROWS, names), seed=0)
    rows = record.tree["unpaired"]
    for measure in ("fid", "kid"):
        assert rows["real_B"][measure] < rows["fake_B"][measure] < rows["identity"][measure]
    assert all(rows[row]["kid_sd"] >= 0 for row in unpaired.ROWS)
    assert all(rows[row]["is"] >= 1 for row in unpaired.ROWS)
    assert "--eval_encoder" in record.why_null()["kd_slice"]
    assert "176" in record.why_null()["ms_ssim_neighbours"]


def test_the_distance_of_textures_tells_blur_and_noise_from_what_is_real() -> None:
    """Real slices of other people are nearest, then a faint blur; a stronger one and noise are further away."""
    rng = np.random.default_rng(0)
    table, record = unpaired.UnpairedTable(None, {row: {} for row in unpaired.ROWS}), Record()
    y, x = np.mgrid[:64, :64] - 32
    found = {}
    for name, change in {
        "sharp": lambda real: real,
        "soft": lambda real: gaussian_filter(real, (0, 0.5, 0.5)),
        "softer": lambda real: gaussian_filter(real, (0, 0.8, 0.8)),
        "noisy": lambda real: real + rng.normal(0, 0.1, real.shape),
    }.items():
        for i in range(6):
            mask = np.broadcast_to((y / rng.uniform(0.8, 1.2)) ** 2 + x**2 < 26**2, (8, 64, 64))
            real = 0.5 + 0.15 * gaussian_filter(rng.normal(size=(2, 8, 64, 64)), (0, 0, 1, 1)) * 3.5
            table.add("real_B", f"s{i}", (real[0] * mask).astype(np.float32), mask, None)
            for row in ("fake_B", "identity"):
                table.add(row, f"s{i}", (change(real[1]) * mask).astype(np.float32), mask, None)
        names = {f"s{i}": f"s{i}" for i in range(6)}
        table.summarise(record, dict.fromkeys(unpaired.ROWS, names), seed=0)
        found[name] = record.tree["unpaired"]["fake_B"]["kd_texture"]
        spread = record.tree["unpaired"]["real_B"]["kd_texture_sd"]
    assert abs(found["sharp"]) < 5 * spread < found["soft"] < found["softer"]
    assert found["noisy"] > found["soft"]
    assert record.reason("unpaired", "fake_B", "kd_slice") == unpaired.NO_ENCODER


def few_slices(*counts: int) -> Record:
    """The record of a test whose subjects have so many slices, with an Inception network and embeddings."""
    rng = np.random.default_rng(0)
    table, record = unpaired.UnpairedTable(TwoFeatures()), Record()
    for i, count in enumerate(counts):
        slices = rng.random((count, 12, 12)).astype(np.float32)
        for row in unpaired.ROWS:
            embedding = rng.random((count, 4)).astype(np.float32)
            table.add(row, f"s{i}", slices, np.ones(slices.shape, dtype=bool), embedding)
    names = {f"s{i}": f"s{i}" for i in range(len(counts))}
    table.summarise(record, dict.fromkeys(unpaired.ROWS, names), seed=0)
    return record


def test_measures_of_too_few_slices_are_null_and_say_how_many_they_need() -> None:
    for counts in ((1,), (1, 1), (2,), (2, 2)):
        record = few_slices(*counts)
        for row in unpaired.ROWS:
            found, n = record.tree["unpaired"][row], sum(counts)
            assert {name for name, value in found.items() if value is not None} <= {"fid"}
            assert record.reason("unpaired", row, "is") == f"{n} slices, need at least {unpaired.LEAST_FOR_IS}"
            assert (found["fid"] is None) == (counts != (2, 2))
            if found["fid"] is None:
                assert "fewer than 2 slices per set" in str(record.reason("unpaired", row, "fid"))
    enough = few_slices(10, 10).tree["unpaired"]
    assert all(enough[row][name] is not None for row in unpaired.ROWS for name in ("fid", "kid", "is", "kd_slice"))


def test_error_map_has_a_colour_for_either_sign() -> None:
    colours = error_map(np.array([[0.5, 0.75, 1.0, 0.25, 0.5]]), np.array([[0.5, 0.5, 0.5, 0.5, 1.0]]))[0]
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[1].tolist() == [255, 0, 0] and colours[2, 0] == 255 and colours[2, 1] > 200
    assert colours[3].tolist() == [0, 0, 255] and colours[4, 2] == 255 and colours[4, 1] > 200


def test_report_escapes_names_and_loads_nothing(tmp_path: Path) -> None:
    record = Record()
    for section in ("paired", "unpaired", "sgp", "lsc"):
        record.null(section, why="no <b>reason</b>")
    scores = {"psnr_fit": 20.0, "psnr": 19.0, "ssim": 0.5}
    put_people(record, {"fake_B": {"s": scores}, "classical": {"s": scores}}, {"s": "<em>ann"})
    stem = 'a"<script>_001'
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / f"{stem}_fake_B.png", np.zeros((4, 4), dtype=np.float32), 8)
    page = tmp_path / "index.html"
    listing = Listing(
        {"</script><s>": SliceScores([stem], [7], {"slice_psnr": [20.0]})},
        {},
        {"</script><s>": "browser/0001.js"},
        ["fake_B"],
    )
    write_report(page, record, title="<i>run</i>", facts={"data": "<u>"}, listing=listing, definitions={"psnr": "dB"})
    text = page.read_text()
    own = "http://www.w3.org/2000/svg"  # a name, which is not fetched
    for raw in ("<i>", "<u>", "<em>", "<b>reason", "<s>", "</script><", "http://", "https://", ' src="http'):
        assert raw not in text.replace(own, "").replace("</script>\n", "").replace("</script></", "")
    assert "images/a%22%3Cscript%3E_001_fake_B.png" in text
