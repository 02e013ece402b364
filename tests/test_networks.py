"""Every network: shapes, sizes, parameter counts, and the properties the method relies on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from skimage.restoration import inpaint_biharmonic
from torchvision.transforms.v2.functional import gaussian_blur as torchvision_blur

from models.chance import uniform
from models.networks import GENERATORS, DiscriminatorOptions, GeneratorOptions, make_discriminator, make_generator
from models.networks.blur import gaussian_blur
from models.networks.hybrid import SOFTER, HybridGenerator, softened
from models.networks.hybrid_options import HybridOptions
from models.networks.inpainting import filled
from models.networks.layers import count_parameters, ema_update, frozen_copy, norm_layer
from models.networks.lsc import LSCNetwork, block_side, corrupt, draw_corruption
from models.networks.sgp import VIEW_DRAWS, SGPNetwork, random_views
from models.networks.structured_attention import StructuredBlock, from_windows, to_windows
from models.passes import translate
from models.sgp_options import SGPSizes
from util.errors import UserError

# parameters at published sizes; a new generator without an entry here fails test_every_generator_is_listed
PARAMETERS = {
    "hybrid": 40_489_653,
    "resnet_9blocks": 11_360_385,
    "resnet_6blocks": 7_821_441,
    "unet_32": 16_649_793,
    "unet_128": 41_815_617,
    "unet_256": 54_398_529,
    "unet_residual": 35_302_017,
}
SMALL = HybridOptions(hybrid_width=24, hybrid_depth=2, hybrid_heads=2, hybrid_mlp=32, hybrid_patch=8, hybrid_features=4)


def small_hybrid() -> HybridGenerator:
    return HybridGenerator(1, 1, sizes=SMALL, norm=norm_layer("instance"))


def test_every_generator_is_listed() -> None:
    assert set(PARAMETERS) == set(GENERATORS)


@pytest.mark.parametrize("name", GENERATORS)
def test_parameter_count(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(GENERATORS[name](GeneratorOptions(netG=name))) == PARAMETERS[name]


def test_hybrid_has_the_published_size() -> None:
    assert PARAMETERS["hybrid"] == pytest.approx(40.3e6, rel=0.05)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_keep_shape_and_range(name: str) -> None:
    side = {"unet_32": 96, "unet_residual": 96, "unet_128": 128, "unet_256": 256}.get(name, 48)
    generator = make_generator(GeneratorOptions(netG=name, ngf=2, **{k: getattr(SMALL, k) for k in SMALL.__dict__}))
    image, logits = translate(generator, torch.rand(2, 1, side, side) * 2 - 1)
    assert image.shape == (2, 1, side, side)
    assert image.abs().max() <= 1
    assert (logits is not None) == (name == "hybrid")
    with pytest.raises(UserError, match="multiples of"):
        translate(generator, torch.zeros(1, 1, side + 1, side))


@pytest.mark.parametrize("netD", ["basic", "n_layers", "pixel"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_discriminators_score_patches(netD: str, norm: str) -> None:
    options = DiscriminatorOptions(netD=netD, ndf=4, n_layers_D=2)
    scores = make_discriminator(options, GeneratorOptions(norm=norm), 2)(torch.rand(2, 2, 64, 64))
    side = {"basic": 6, "n_layers": 14, "pixel": 64}[netD]
    assert scores.shape == (2, 1, side, side)


def test_patch_discriminator_refuses_tiny_images() -> None:
    with pytest.raises(UserError, match="at least 32 px"):
        make_discriminator(DiscriminatorOptions(ndf=4), GeneratorOptions(), 1)(torch.rand(1, 1, 16, 16))


@pytest.mark.parametrize("grid", [(14, 14), (5, 9), (3, 2)])
def test_windows_round_trip(grid: tuple[int, int]) -> None:
    tokens = torch.rand(2, grid[0] * grid[1], 3)
    assert torch.equal(from_windows(to_windows(tokens, grid, 4), grid, 4), tokens)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_gathered_and_dense_paths_agree(share: float) -> None:
    torch.manual_seed(0)
    block = StructuredBlock(16, 2, 32, window=4)
    x, foreground = torch.randn(3, 9 * 10, 16), torch.rand(3, 90) < share
    foreground[0] = False  # an image without any foreground
    gathered = block(x, foreground, (9, 10))
    assert torch.allclose(gathered, block(x, foreground, (9, 10), dense=True), atol=1e-4)


def test_foreground_sees_all_foreground_and_background_its_window_only() -> None:
    torch.manual_seed(0)
    block = StructuredBlock(16, 2, 32, window=4)
    x = torch.randn(1, 64, 16)
    foreground = torch.zeros(1, 64, dtype=torch.bool)
    foreground[0, [0, 63]] = True  # opposite corners of the 8 x 8 grid
    changed = x.clone()
    changed[0, 63] += torch.randn(16)
    moved = (block(changed, foreground, (8, 8)) - block(x, foreground, (8, 8))).abs().sum(-1)[0] > 1e-6
    assert moved[[0, 63]].all()
    assert moved.sum() == 2  # background, in the same window or not, sees no foreground
    changed = x.clone()
    changed[0, 1] += torch.randn(16)
    moved = (block(changed, foreground, (8, 8)) - block(x, foreground, (8, 8))).abs().sum(-1)[0] > 1e-6
    window = [row * 8 + column for row in range(4) for column in range(4)]
    assert set(moved.nonzero().flatten().tolist()) == set(window) - {0}


def test_hybrid_paths_agree_and_true_mask_steers() -> None:
    torch.manual_seed(0)
    generator, x = small_hybrid(), torch.rand(2, 1, 48, 32) * 2 - 1
    mask = torch.zeros(2, 1, 48, 32)
    mask[..., :16, :] = 1
    with torch.no_grad():
        gathered, _ = generator(x, mask)
        other, _ = generator(x, 1 - mask)
        generator.dense = True
        dense, _ = generator(x, mask)
    assert torch.allclose(gathered, dense, atol=1e-4)
    assert not torch.allclose(gathered, other, atol=1e-4)


def test_every_hybrid_parameter_gets_a_gradient() -> None:
    generator, x = small_hybrid(), torch.rand(2, 1, 32, 32)
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., :16] = 1
    image, logits = generator(x, mask)
    (image.square().mean() + logits.square().mean()).backward()
    without = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_the_hybrid_starts_from_the_image() -> None:
    x = torch.rand(1, 1, 32, 32) * 2 - 1
    start = 0.96 * softened(x, torch.zeros(1, 1 + len(SOFTER), 32, 32))
    for residual, expected in ((True, start), (False, torch.zeros_like(x))):
        sizes = replace(SMALL, hybrid_residual=residual)
        generator = HybridGenerator(1, 1, sizes=sizes, norm=norm_layer("instance"))
        torch.nn.init.zeros_(generator.output.weight)
        torch.nn.init.zeros_(generator.output.bias)
        assert torch.allclose(generator(x)[0], expected, atol=1e-5)


def test_softening_follows_its_weights() -> None:
    x = torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    even, alone = torch.zeros(2, 1 + len(SOFTER), 96, 96), []
    for version in range(1 + len(SOFTER)):
        logits = even.clone()
        logits[:, version] = 50
        alone.append(softened(x, logits))
    assert torch.allclose(alone[0], x, atol=1e-6)
    assert alone[-1].std() < softened(x, even).std() < x.std()
    # white noise under a Gaussian of s px: 1 / (2 sqrt(pi) s) of its deviation is left
    for share, blurred in zip(SOFTER, alone[1:], strict=True):
        assert blurred.std().item() == pytest.approx(x.std().item() / (2 * math.pi**0.5 * share * 96), rel=0.1)
    assert torch.allclose(softened(torch.full_like(x, 0.4), even), torch.full_like(x, 0.4), atol=1e-6)


def test_corruption_rates_and_values() -> None:
    x = torch.rand(4, 1, 120, 120) * 2 - 1
    draws = draw_corruption(4, (120, 120), 24, torch.Generator().manual_seed(0))
    assert draws.shape == (4, 3, 24, 24)
    out, masked = corrupt(x, draws, n_blocks=24, rotate_ratio=0.5, mask_ratio=0.2)
    assert masked.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (out[masked] == -1).all()
    changed = (out != x).float().mean().item()
    assert changed == pytest.approx(0.2 + 0.8 * 0.5 * 24 / 25, abs=0.03)  # a rotated 5x5 block keeps its centre
    sums = [t.unfold(2, 5, 5).unfold(3, 5, 5).sum((-1, -2)) for t in (out, x)]
    kept = ~masked[:, :, ::5, ::5]
    assert torch.allclose(sums[0][kept], sums[1][kept], atol=1e-4)  # rotation keeps every block's content


def test_corruption_is_identity_at_zero_and_adapts_to_any_size() -> None:
    for size in ((120, 120), (100, 90), (37, 51)):
        x = torch.rand(1, 1, *size)
        draws = draw_corruption(1, size, 24, torch.Generator().manual_seed(1))
        assert torch.equal(corrupt(x, draws, n_blocks=24, rotate_ratio=0, mask_ratio=0)[0], x)
        assert corrupt(x, draws, n_blocks=24, rotate_ratio=1, mask_ratio=0.5)[0].shape == x.shape
    assert block_side((120, 120), 24) == 5


def test_corruption_lets_gradients_through_everywhere_but_masks() -> None:
    x = torch.rand(1, 1, 60, 60, requires_grad=True)
    draws = draw_corruption(1, (60, 60), 12, torch.Generator().manual_seed(2))
    out, masked = corrupt(x, draws, n_blocks=12, rotate_ratio=0.5, mask_ratio=0.3)
    out.sum().backward()
    assert torch.equal(x.grad, (~masked).float())  # rotation permutes pixels inside unmasked blocks


@pytest.mark.parametrize("size", [(48, 48), (37, 50)])
def test_restoration_network_keeps_any_size(size: tuple[int, int]) -> None:
    x, masked = torch.rand(2, 1, *size) * 2 - 1, torch.rand(2, 1, *size) < 0.2
    assert LSCNetwork()(x).shape == LSCNetwork(fill=True)(x, masked).shape == x.shape


def test_filling_bends_as_little_as_biharmonic_inpainting() -> None:
    """Against scikit-image, which solves the equations exactly; and masked pixels' own values play no part."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 40), indexing="ij")
    image = (0.5 * torch.sin(4 * x + y) * torch.cos(3 * y))[None, None]
    masked = torch.zeros(1, 1, 12, 10, dtype=torch.bool)
    masked[0, 0, [2, 5, 5, 8, 9], [3, 4, 5, 2, 7]] = True
    masked = masked.repeat_interleave(4, 2).repeat_interleave(4, 3)
    found = filled(torch.where(masked, -1.0, image), masked, 4)
    exact = inpaint_biharmonic(image[0, 0].double().numpy(), masked[0, 0].numpy())
    assert torch.equal(found[~masked], image[~masked])
    worst = (found[0, 0].double() - torch.from_numpy(exact)).abs().max()
    assert worst < 0.03 < (torch.where(masked, image.mean(), image) - image).abs().max() / 5
    assert torch.equal(found, filled(torch.where(masked, 1.0, image), masked, 4))
    rough = image.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(filled(rough, masked, 4), filled(rough.float(), masked, 4))
    nothing = torch.zeros_like(masked)
    assert torch.equal(filled(image, nothing, 4), image)
    assert torch.equal(filled(image, ~nothing, 4), torch.full_like(image, -1))


def test_gradients_pass_a_filling() -> None:
    x = (torch.rand(2, 1, 8, 12, dtype=torch.float64) * 2 - 1).requires_grad_()
    masked = torch.zeros(2, 1, 8, 12, dtype=torch.bool)
    masked[:1, :, 4:8, 4:8] = True
    assert torch.autograd.gradcheck(lambda x: filled(x, masked, 4), (x,))
    (gradient,) = torch.autograd.grad(filled(x, masked, 4).sum(), x)
    assert (gradient[masked] == 0).all() and (gradient[1] == 1).all()


def test_sgp_embeddings_are_unit_vectors_of_separate_encoders() -> None:
    torch.manual_seed(0)
    sizes = SGPSizes(sgp_input=40, sgp_patch=16, sgp_width=32, sgp_depth=1, sgp_heads=2, sgp_embedding=8)
    network, x = SGPNetwork(sizes).eval(), torch.rand(3, 1, 50, 60)
    u, v = network(x, "A"), network(x, "B")
    assert network.crop == 32
    assert u.shape == (3, 8)
    assert torch.allclose(u.norm(dim=1), torch.ones(3))
    assert torch.equal(u, v)  # one start
    network.encoders["B"].heads.head.weight.data.mul_(-1)
    assert not torch.allclose(u, network(x, "B"))  # two encoders
    assert torch.equal(u, network(x, "A"))
    corners = torch.tensor([[0.0, 0.9], [0.5, 0.5], [0.9, 0.0]])
    crops = [network(x, "A", places) for places in (corners, corners, corners.flip(0))]
    assert torch.equal(crops[0], crops[1])
    assert torch.allclose(crops[0][1], crops[2][1], atol=1e-6)  # every slice has its own
    assert not torch.allclose(crops[0][0], crops[2][0], atol=1e-3)


def test_random_views_move_every_slice_by_itself_and_keep_background() -> None:
    x = torch.full((3, 1, 40, 40), -1.0)
    x[:, :, 15:25, 15:25] = 0.5
    draws = uniform(torch.arange(3), "view", VIEW_DRAWS)
    views = random_views(x, draws)
    assert views.shape == x.shape
    assert (views[:, :, 0] == -1).all()
    assert len({round(view.sum().item(), 3) for view in views}) == 3
    assert torch.equal(views, random_views(x, draws))
    assert torch.equal(views[1:], random_views(x[1:], draws[1:]))  # whatever else is in the batch


def test_average_follows_its_decay() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = frozen_copy(network)
    start = average.weight.item()
    torch.nn.init.constant_(network.weight, 2.0)
    ema_update(average, network, 0, 0.999)
    assert average.weight.item() == pytest.approx(0.1 * start + 0.9 * 2.0)  # decay (1 + 0) / (10 + 0)
    before = average.weight.item()
    ema_update(average, network, 10**6, 0.5)
    assert average.weight.item() == pytest.approx(0.5 * before + 1.0)
    assert not average.weight.requires_grad


@pytest.mark.parametrize(("shape", "sigma", "width"), [((2, 3, 40, 24), 1.5, 11), ((1, 1, 9, 33), 2.0, 17)])
def test_blur_is_that_of_convolutions(shape: tuple[int, ...], sigma: float, width: int) -> None:
    x = torch.rand(shape, requires_grad=True, generator=torch.Generator().manual_seed(0))
    expected, blurred = torchvision_blur(x, [width, width], [sigma, sigma]), gaussian_blur(x, sigma, width)
    torch.testing.assert_close(blurred, expected, rtol=1e-5, atol=1e-6)
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((weights * y).sum(), x)[0] for y in (expected, blurred)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
    assert gaussian_blur(x.double(), sigma, width).dtype is torch.float64


def test_blur_keeps_its_digits_in_mixed_precision_and_its_tables_do_for_training() -> None:
    x = torch.rand(1, 1, 20, 21)
    with torch.inference_mode():  # whoever asks first
        before = gaussian_blur(x, 1.25, 7)
    with torch.autocast("cpu", torch.bfloat16):
        y = gaussian_blur(x.requires_grad_(), 1.25, 7)
    assert y.dtype is torch.float32 and torch.equal(y, before)
    y.sum().backward()
    assert x.grad is not None and x.grad.sum().item() == pytest.approx(20 * 21, rel=1e-5)  # nothing is lost at edges
