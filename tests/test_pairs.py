"""Dataset mode `aligned`, and the models that learn from pairs: supervised and pix2pix."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import train_arguments, write_truths
from tiny_models import SIDE, SMALL, batch, context
from torch.nn import functional as F

import train
from data.aligned_dataset import AlignedDataset
from data.cache.slice_cache import SliceCache
from data.folder.slices import read_image, read_mask, write_image, write_mask
from data.unaligned_options import UnalignedOptions
from models.adversarial_options import Weights
from models.losses import ssim_loss
from models.pix2pix_model import Pix2PixModel, Pix2PixStage
from models.pix2pix_options import Pix2PixOptions
from models.supervised_model import SupervisedModel
from models.supervised_options import SupervisedOptions
from options.train_options import parse
from training.data import open_data
from util.errors import UserError

HYBRID = {name: value for name, value in SMALL.items() if name.startswith("hybrid")}


@pytest.fixture
def pairs(phantom: Path) -> Path:
    return write_truths(phantom)


def aligned(root: Path, **options: object) -> AlignedDataset:
    return AlignedDataset(
        SliceCache(root, root.parent / "cache"), UnalignedOptions(**{"load_size": SIDE, "flip": True, **options})
    )


def test_every_item_is_a_slice_and_its_own_truth_flipped_and_cropped_together(pairs: Path) -> None:
    for options in ({}, {"preprocess": "resize_and_crop", "load_size": 40, "crop_size": SIDE}):
        data = aligned(pairs, **options)
        found = [data.__getitems__(draws) for draws in data.batches("any", "shuffled", 0, 5)]
        whole = [torch.cat([getattr(part, name) for part in found]) for name in ("A", "B", "index_A", "index_B")]
        a, b, index_a, index_b = whole
        assert torch.equal(index_a, index_b) and sorted(index_a.tolist()) == list(range(12))
        wanted = ((a + 1) / 2 * 1.5 - 0.1).clamp(0, 1) * 2 - 1
        near = (b - wanted).abs() < 0.03  # 8 bits, and a rim that was interpolated
        assert near.float().mean() > 0.9
        assert not torch.equal(a, a.flip(-1))


def test_the_truth_has_its_own_mask(pairs: Path) -> None:
    (pairs / "trainA_truth_mask").mkdir()
    for path in (pairs / "trainA_truth").iterdir():
        mask = np.zeros((SIDE, SIDE), bool)
        mask[8:20, 8:20] = True
        write_mask(pairs / "trainA_truth_mask" / path.name, mask)
    (draws, *_) = aligned(pairs).batches("any", "shuffled", 0, 4)
    found = aligned(pairs).__getitems__(draws)
    assert (found.mask_B.sum((1, 2, 3)) == 144).all() and (found.mask_A.sum((1, 2, 3)) > 144).all()
    assert (found.B[found.mask_B == 0] == -1).all()


def test_serial_batches_and_the_first_slices(pairs: Path) -> None:
    draws = aligned(pairs, serial_batches=True, max_dataset_size=5).batches("any", "shuffled", 3, 8).draws
    assert draws.a.tolist() == draws.b.tolist() == [0, 1, 2, 3, 4]


def run_of(root: Path, out: Path, *more: str):
    return open_data(parse(train_arguments(root, out, "supervised", *more)))


def test_what_has_no_truth_is_refused_and_can_be_left_out(pairs: Path, tmp_path: Path) -> None:
    truth = pairs / "trainA_truth"
    (truth / "trainA0_002.png").unlink()
    (truth / "trainA0_003.png").write_bytes(b"no picture")
    write_image(truth / "trainA0_004.png", np.ones((8, 9), np.float32), 8)
    (pairs / "trainA" / "trainA1_000.png").unlink()
    (pairs / "trainA_mask" / "trainA1_000.png").unlink()
    with pytest.raises(UserError, match="4 bad files"):
        run_of(pairs, tmp_path / "out")
    reasons = (tmp_path / "out" / "experiment" / "bad_files.csv").read_text()
    for part in ("no truth of that name", "cannot be read", "8x9 pixels, its slice has 32x32", "a truth without image"):
        assert part in reasons
    data, unseen, problems = run_of(pairs, tmp_path / "out", "--skip_bad")
    assert len(problems) == 4 and unseen is not None and len(unseen.A) == 12
    names = [data.A.name(i) for i in range(len(data.A))]
    assert names == [data.B.name(i) for i in range(len(data.B))] and len(names) == 8


def test_without_a_folder_of_truths(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder trainA_truth"):
        run_of(phantom, tmp_path / "out")
    write_truths(phantom)
    (phantom / "valA_truth").rename(phantom / "elsewhere")
    assert run_of(phantom, tmp_path / "out")[1] is None  # validation needs pairs, too


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model=supervised", "--dataset_mode=unaligned_mask"], "supervised learns from pairs, allowed is aligned"),
        (["--model=pix2pix", "--dataset_mode=unaligned"], "pix2pix learns from pairs"),
        (["--model=cycle_gan", "--dataset_mode=aligned"], "cycle_gan is not to see pairs, allowed is unaligned_mask"),
        (["--model=supervised", "--direction=BtoA"], "--direction BtoA: supervised goes from A to B only"),
        (["--model=sgp", "--direction=BtoA"], "--direction BtoA: sgp goes from A to B only"),
        (["--model=supervised", "--level_tolerance=0.1"], "--level_tolerance 0.1 does nothing"),
    ],
)
def test_models_with_and_without_pairs_are_not_mixed_up(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(["--dataroot=D", *options])


def test_supervised_is_l1_and_ssim_to_the_truth() -> None:
    torch.manual_seed(0)
    model = SupervisedModel(SupervisedOptions(**HYBRID, structured_shape_iter=0, lambda_seg=0.0), (SIDE, SIDE))
    (stage,), data = model.stages, batch()
    stage.begin(model)
    fake = model.G_AB(data.A)[0]
    found = stage.step(data, context())
    assert found["l1"].item() == pytest.approx((fake - data.B).abs().mean().item(), rel=1e-5)
    assert found["1-ssim"].item() == pytest.approx(ssim_loss(fake, data.B, data.mask_B).item(), rel=1e-4)
    assert set(found) == {"l1", "1-ssim"} and model.averages.updates == 1


def test_pix2pix_judges_an_image_beside_its_slice() -> None:
    """The generator's terms and D_B's, against formulas of their own."""
    torch.manual_seed(0)
    options = Pix2PixOptions(**SMALL, structured_shape_iter=0, lambda_seg=0.0, norm_D="none")
    model, data = Pix2PixModel(options, (SIDE, SIDE)), batch()
    (stage,) = model.stages
    stage.begin(model)
    fake = model.G_AB(data.A)[0].detach()
    judged = [model.D_B(torch.cat([data.A, image], 1)) for image in (fake, data.B)]
    ones, zeros = torch.ones_like(judged[0]), torch.zeros_like(judged[0])
    cross = F.binary_cross_entropy_with_logits
    found = stage.step(data, context())
    assert found["adv"].item() == pytest.approx(cross(judged[0], ones).item(), rel=1e-4)
    assert found["l1"].item() == pytest.approx((fake - data.B).abs().mean().item(), rel=1e-5)
    wanted = (cross(judged[0], zeros) + cross(judged[1], ones)) / 2
    assert found["D_B"].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_pix2pix_keeps_pairs_in_its_pool() -> None:
    """A synthesis must not be shown to D_B beside another slice than the one that it was made of."""
    torch.manual_seed(0)
    options = Pix2PixOptions(**SMALL, pool_size=2)
    model, data = Pix2PixModel(options, (SIDE, SIDE)), batch()
    stage = Pix2PixStage(model, Weights(adv=1.0))
    stage.begin(model)
    stage.step(data, context(2))
    kept = torch.stack(stage.pools["B"].images)
    assert kept.shape == (2, 2, SIDE, SIDE)
    assert all(any(torch.equal(image[:1], a) for a in data.A) for image in kept)
    stage.load_process_state(stage.process_state())


def test_pairs_are_learned_and_scored_on_unseen_slices(pairs: Path, tmp_path: Path) -> None:
    """A contrast that is a straight line: within some steps supervised is nearer to the truth than its input is."""
    more = ("--name=run", "--netG=hybrid", "--lr=0.01", "--n_epochs=12", "--val_epoch_freq=13", "--ema_beta=0.5")
    train.main(train_arguments(pairs, tmp_path, "supervised", *more))
    with (tmp_path / "run" / "loss_log.csv").open() as file:
        scores = [row for row in csv.DictReader(file) if row["val_psnr"]]
    names = [path.name for path in (pairs / "valA").iterdir()]
    low, truth = (np.stack([read_image(pairs / folder / name) for name in names]) for folder in ("valA", "valA_truth"))
    head = np.stack([read_mask(pairs / "valA_mask" / name) for name in names])
    untouched = -10 * np.log10(np.square(low - truth)[head].mean())
    assert float(scores[-1]["val_psnr"]) > untouched + 3
    assert float(scores[-1]["val_train_psnr"]) > untouched
