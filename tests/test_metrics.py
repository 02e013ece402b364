"""Measures against scikit-image, torchmetrics, closed forms and numbers worked by hand."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision.models import AlexNet_Weights, alexnet
from torchvision.models.inception import Inception3

from evaluation.metrics import features, image, inception, inception_file, lpips, texture
from evaluation.metrics.intervals import mean_interval95
from util.errors import UserError


@pytest.fixture
def volume() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, truth (3, 40, 36) float32 in [0, 1] and a head mask."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:40, :36]
    truth = np.stack([0.5 + 0.4 * np.sin(x / (4 + s)) * np.cos(y / 5) for s in range(3)]).astype(np.float32)
    prediction = np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1).astype(np.float32)
    mask = np.broadcast_to((x - 18) ** 2 + (y - 20) ** 2 < 200, truth.shape)
    return prediction, truth, mask


def test_psnr_by_hand() -> None:
    truth = np.zeros((1, 2, 2))
    prediction = np.array([[[0.1, 0.1], [0.9, 0.9]]])
    mask = np.array([[[True, True], [False, False]]])
    assert image.psnr(prediction, truth, mask) == pytest.approx(20)  # error 0.1 in the head: -10 log10(0.01)
    assert image.psnr_full(prediction, truth) == pytest.approx(-10 * np.log10((0.01 + 0.81) / 2))


def test_psnr_pools_voxels_of_the_volume() -> None:
    truth = np.zeros((2, 1, 2))
    prediction = np.array([[[0.2, 0.9]], [[0.0, 0.4]]])
    mask = np.array([[[True, False]], [[True, True]]])
    assert image.psnr(prediction, truth, mask) == pytest.approx(-10 * np.log10((0.04 + 0 + 0.16) / 3))


def test_no_number_where_there_is_none(volume: tuple[np.ndarray, ...]) -> None:
    prediction, truth, mask = volume
    assert image.psnr(truth, truth, mask) is None
    empty = np.zeros_like(mask)
    for measure in (image.psnr, image.psnr_fit, image.ssim, image.nrmse, image.mae):
        assert measure(prediction, truth, empty) is None
    assert image.ssim_full(prediction[:, :10], truth[:, :10]) is None
    assert image.ssim(prediction[:, :10], truth[:, :10], mask[:, :10]) is None
    with pytest.raises(ValueError, match="same dimensions"):
        image.ssim(prediction[..., :30], truth, mask)
    with pytest.raises(ValueError, match="truth"):
        image.psnr(prediction[:, :1], truth, mask)


def test_psnr_fit_ignores_windowing(volume: tuple[np.ndarray, ...]) -> None:
    prediction, truth, mask = volume
    fitted = image.psnr_fit(prediction, truth, mask)
    assert image.psnr_fit(0.3 * prediction + 0.2, truth, mask) == pytest.approx(fitted)
    assert image.psnr_fit(1 - prediction, truth, mask) == pytest.approx(fitted)
    assert fitted >= image.psnr(prediction, truth, mask)
    constant = np.full_like(truth, 0.7)
    assert image.psnr_fit(constant, truth, mask) == pytest.approx(-10 * np.log10(truth[mask].var()), abs=1e-4)


def test_affine_fit_is_least_squares(volume: tuple[np.ndarray, ...]) -> None:
    prediction, truth, mask = volume
    assert image.affine_fit(prediction, truth, mask) == pytest.approx(
        np.polyfit(prediction[mask], truth[mask], 1), rel=1e-5
    )


def test_nrmse_and_mae_by_hand() -> None:
    truth = np.array([[[3.0, 4.0, 9.0]]])
    prediction = np.array([[[3.0, 5.0, 0.0]]])
    mask = np.array([[[True, True, False]]])
    assert image.nrmse(prediction, truth, mask) == pytest.approx(1 / 5)
    assert image.mae(prediction, truth, mask) == pytest.approx(0.5)


def test_ssim_is_that_of_wang_2004(volume: tuple[np.ndarray, ...]) -> None:
    """Against the formula with a Gaussian filter that mirrors at the border, as scikit-image's does."""
    p, t, mask = (array.astype(np.float64) for array in volume)
    head = mask > 0
    mean_p, mean_t, pp, tt, pt = (
        gaussian_filter(x, sigma=(0, 1.5, 1.5), truncate=3.5) for x in (p, t, p * p, t * t, p * t)
    )
    luminance = (2 * mean_p * mean_t + 0.01**2) / (mean_p**2 + mean_t**2 + 0.01**2)
    structure = (2 * (pt - mean_p * mean_t) + 0.03**2) / (pp - mean_p**2 + tt - mean_t**2 + 0.03**2)
    expected = luminance * structure
    assert image.ssim(p, t, head) == pytest.approx(expected[head].mean(), abs=1e-12)
    assert image.ssim_full(p, t) == pytest.approx(expected[:, 5:-5, 5:-5].mean(), abs=1e-12)


def _ms_ssim_by_convolution(p: torch.Tensor, t: torch.Tensor) -> float:
    """Wang et al. 2003 with an explicit 11 x 11 window, whole windows only; p, t: (N, 1, H, W)."""
    ramp = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(ramp**2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    score = torch.ones(len(p), dtype=torch.float64)
    for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        mu_p, mu_t, pp, tt, pt = (F.conv2d(x, window) for x in (p, t, p * p, t * t, p * t))
        cs = (2 * (pt - mu_p * mu_t) + 0.03**2) / (pp - mu_p**2 + tt - mu_t**2 + 0.03**2)
        luminance = (2 * mu_p * mu_t + 0.01**2) / (mu_p**2 + mu_t**2 + 0.01**2)
        part = luminance * cs if weight == 0.1333 else cs
        score *= part.mean((1, 2, 3)) ** weight
        p, t = F.avg_pool2d(p, 2), F.avg_pool2d(t, 2)
    return float(score.mean())


def test_ms_ssim_is_the_standard_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((2, 176, 190))
    truth = (truth + np.roll(truth, 1, 1) + np.roll(truth, 1, 2)) / 3
    prediction = np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1)
    tensors = torch.from_numpy(prediction)[:, None], torch.from_numpy(truth)[:, None]
    assert image.ms_ssim(prediction, truth) == pytest.approx(_ms_ssim_by_convolution(*tensors), abs=1e-9)
    near = multiscale_structural_similarity_index_measure(*tensors, data_range=1.0)  # counts a rim at the last scale
    assert image.ms_ssim(prediction, truth) == pytest.approx(float(near), abs=1e-3)
    assert image.ms_ssim(prediction[:, :175], truth[:, :175]) is None


def test_interval_of_people_with_one_subject_each_is_students() -> None:
    values = np.random.default_rng(1).normal(20, 2, 40)
    people = [f"p{i}" for i in range(40)]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval95(values.tolist(), people) == pytest.approx((expected.low, expected.high))
    assert mean_interval95(values[:12].tolist(), people[:12]) is not None
    assert mean_interval95(values[:11].tolist(), people[:11]) is None


def test_interval_over_people_by_hand() -> None:
    """As many subjects a person: Student's interval of the people's means. A person scanned twice counts once."""
    rng = np.random.default_rng(2)
    means = rng.normal(20, 2, 4)
    values, people = np.repeat(means, 3), np.repeat(list("abcd"), 3).tolist()
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert mean_interval95(values.tolist(), people) == pytest.approx((expected.low, expected.high))
    low, high = mean_interval95(values.tolist(), people)
    one, other = mean_interval95(values.tolist(), [str(i) for i in range(12)])
    assert other - one < 0.6 * (high - low)
    assert mean_interval95(values.tolist(), np.repeat(list("abc"), 4).tolist()) is None


@pytest.mark.parametrize(("people", "each"), [(12, 1), (4, 3), (6, 4)])
def test_interval_covers_the_mean_in_95_of_100_trials(people: int, each: int) -> None:
    """People and their scans spread alike; with skewed people the coverage falls, but not below 89 %."""
    rng = np.random.default_rng(0)
    who = np.repeat([f"p{i}" for i in range(people)], each).tolist()
    for skewed, least, most in ((False, 0.935, 0.965), (True, 0.885, 0.965)):
        inside = 0
        for _ in range(2000):
            drawn = [rng.normal(size=shape) for shape in ((people, 1), (people, each))]
            if skewed:
                drawn = [np.exp(0.75 * x) - np.exp(0.75**2 / 2) for x in drawn]
            values = drawn[0] + (drawn[1] if each > 1 else 0)
            low, high = mean_interval95(values.ravel().tolist(), who)
            inside += low <= 0 <= high
        assert least < inside / 2000 < most, skewed


def test_kernel_distance_against_its_definition() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))

    def k(u: np.ndarray, v: np.ndarray) -> float:
        return (u @ v / 3 + 1) ** 3

    within_x = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([k(u, v) for u in x for v in y])
    assert features.kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * across)


def test_texture_and_its_kernel_by_hand() -> None:
    """A ramp has one gradient and no detail; a slice without a head has none; the kernel against its definition."""
    y, x = np.mgrid[:40, :40]
    ramp = np.stack([0.01 * x, 0.01 * x]).astype(np.float64)
    masks = np.stack([(y - 20) ** 2 + (x - 20) ** 2 < 14**2, y < 0])
    found = texture.texture(ramp, masks)
    assert found.shape == (2, texture.DIMENSIONS) and np.isnan(found[1]).all()
    np.testing.assert_allclose(found[0, -6:], np.log(0.01 + texture.EDGE_FLOOR), atol=5e-3)
    np.testing.assert_allclose(found[0, :10], np.log(texture.DETAIL_FLOOR), atol=1e-2)
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return np.exp(-((a - b) ** 2).sum() / (2 * 1.5**2 * 3))

    within_u = np.mean([k(u[i], u[j]) for i in range(5) for j in range(5) if i != j])
    within_v = np.mean([k(v[i], v[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([k(a, b) for a in u for b in v])
    assert texture.gaussian_kernel_distance(u, v) == pytest.approx(within_u + within_v - 2 * across)


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    rng = np.random.default_rng(4)
    same = [features.kernel_distance(rng.normal(size=(30, 8)), rng.normal(size=(30, 8))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200)
    assert min(same) < 0
    assert features.kernel_distance(rng.normal(size=(30, 8)), rng.normal(size=(30, 8)) + 1) > max(same)


def test_frechet_closed_form_and_matrix_root() -> None:
    mean_x, mean_y = np.array([0.0, 1.0]), np.array([2.0, 1.0])
    assert features.frechet_of_moments(mean_x, np.diag([4.0, 9.0]), mean_y, np.diag([1.0, 16.0])) == pytest.approx(
        4 + (2 - 1) ** 2 + (3 - 4) ** 2
    )
    rng = np.random.default_rng(5)
    a, b = (m @ m.T for m in rng.normal(size=(2, 4, 4)))
    expected = np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert features.frechet_of_moments(np.zeros(4), a, np.zeros(4), b) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")  # it stores the features, which are few
@pytest.mark.parametrize("n", [40, 300])
def test_frechet_and_kernel_distance_are_fid_and_kid(n: int) -> None:
    """Against torchmetrics, with fewer and with more slices than features; KID with its gamma of 1 / features."""
    generator = torch.Generator().manual_seed(0)
    x, y = (shift + torch.randn(m, 64, generator=generator) for m, shift in ((n, 0.0), (n - 10, 0.5)))
    fid = FrechetInceptionDistance(feature=inception._Identity(64)).set_dtype(torch.float64)
    fid.update(x.double(), real=True)
    fid.update(y.double(), real=False)
    assert features.frechet_distance(x.numpy(), y.numpy()) == pytest.approx(float(fid.compute()), rel=1e-4)
    y = y[: len(x)]
    size = len(y)
    kid = KernelInceptionDistance(feature=inception._Identity(64), subsets=1, subset_size=size)
    kid.update(x[:size], real=True)
    kid.update(y, real=False)
    assert features.kernel_distance(x[:size].numpy(), y.numpy()) == pytest.approx(float(kid.compute()[0]), rel=1e-4)


def test_halves_share_no_person() -> None:
    names = [f"s{i}" for i in range(5) for _ in range(3)]
    first, second = features.halve_people(names, rng=np.random.default_rng(0))
    assert len(first) == 2 and len(second) == 3 and not first & second


@pytest.fixture(scope="module")
def network() -> inception.FIDInception:
    torch.manual_seed(0)
    state = Inception3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    return inception.FIDInception({name: value * 0.1 if "conv" in name else value for name, value in state.items()})


def test_fid_network(network: inception.FIDInception) -> None:
    """Its poolings are those of the TensorFlow graph: 3 x 3 means of what is inside, a maximum in the last block."""
    pooled = network(torch.rand(2, 1, 30, 20))
    assert pooled.shape == (2, 2048) and network.logits(pooled).shape == (2, 1008)
    x = torch.rand(1, 192, 4, 4)
    block = network.net.Mixed_5b
    inside = torch.stack([x[..., max(i - 1, 0) : i + 2, 0:2].mean((-1, -2)) for i in range(4)], dim=-1)
    torch.testing.assert_close(block(x)[:, -32:, :, 0], block.branch_pool(inside[..., None])[..., 0])
    y = torch.rand(1, 2048, 3, 3)
    last = network.net.Mixed_7c
    torch.testing.assert_close(last(y)[:, -192:, 1, 1], last.branch_pool(y.amax((-1, -2), keepdim=True))[..., 0, 0])


def test_inception_score_bounds_and_seed() -> None:
    before = torch.random.get_rng_state()
    same = inception.inception_score(torch.zeros(40, 8), seed=0)
    assert same == pytest.approx(1)  # every image alike: no information in the class
    certain = 50 * torch.eye(4).repeat(20, 1)
    assert 3 < inception.inception_score(certain, seed=0) <= 4
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_of_others_are_known_by_their_checksum(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "other.pth").write_bytes(b"another's")
    cpu = torch.device("cpu")
    for module, open_file in ((inception_file, inception_file.open_inception), (lpips, lpips.open_lpips)):
        known = module.WEIGHTS
        assert open_file(None, cpu) is None
        with pytest.raises(UserError, match=rf"{known.option} .*absent\.pth: no such file"):
            open_file(str(tmp_path / "absent.pth"), cpu)
        with pytest.raises(UserError, match=rf"{known.option} .*other\.pth: not .*, need {known.names[0]}"):
            open_file(str(tmp_path / "other.pth"), cpu)
        (folder / known.names[-1]).write_bytes(b"")
        assert known.cached() is None
        empty = replace(known, sha256=hashlib.sha256(b"").hexdigest())
        assert empty.cached() == folder / known.names[-1] and empty.is_at(folder / known.names[-1])
    assert AlexNet_Weights.DEFAULT.url.endswith(lpips.WEIGHTS.names[0])


def test_lpips_is_that_of_torchmetrics() -> None:
    theirs = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    layers = {f"features.{name.split('.', 1)[1]}": value for name, value in theirs.net.state_dict().items()}
    untrained = alexnet(weights=None)
    untrained.load_state_dict(untrained.state_dict() | layers)
    ours = lpips.LPIPS(untrained.state_dict(), lpips.read_heads())
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 18, 40, 64)).astype(np.float32)
    pair = [torch.from_numpy(z)[:, None].expand(-1, 3, -1, -1) for z in (x, y)]
    expected = theirs(*pair, normalize=True).flatten().numpy()
    np.testing.assert_allclose(ours.slices(x, y), expected, rtol=1e-4)
    assert expected.min() > 0 and (ours.slices(x, x) == 0).all()
    assert ours.slices(x[:, :30], y[:, :30]) is None and len(ours.slices(x[:2, :31], y[:2, :31])) == 2


def test_a_file_that_only_looks_like_alexnet_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alexnet.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    monkeypatch.setattr(lpips, "WEIGHTS", replace(lpips.WEIGHTS, sha256=""))
    with pytest.raises(UserError, match=r"--lpips_weights .*alexnet\.pth: cannot be read as torchvision's AlexNet"):
        lpips.open_lpips(str(path), torch.device("cpu"))
    monkeypatch.setattr(lpips, "HEADS", "nowhere.pth")
    with pytest.raises(UserError, match=r"--lpips_weights needs the heads of LPIPS, which torchmetrics .* lacks"):
        lpips.open_lpips(str(path), torch.device("cpu"))
