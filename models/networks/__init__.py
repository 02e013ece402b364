"""The networks, by the names that `--netG` and `--netD` take, and their options.

They are imported when they are built: the options are needed before torch is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.networks.hybrid_options import HybridOptions
from util.needs import Need, chosen
from util.schema import flag

if TYPE_CHECKING:
    from torch import nn

    from models.networks.layers import Norm

NORMS = ("instance", "batch", "none")  # models/networks/layers.py has them all, and the initialisations
INITS = ("normal", "xavier", "kaiming", "orthogonal")


def _hybrid(o: GeneratorOptions) -> nn.Module:
    from models.networks.hybrid import HybridGenerator
    from models.networks.layers import norm_layer

    return HybridGenerator(o.input_nc, o.output_nc, sizes=o, norm=norm_layer(o.norm))


def _resnet(o: GeneratorOptions, n_blocks: int) -> nn.Module:
    from models.networks.layers import norm_layer
    from models.networks.resnet import ResnetGenerator

    bias = o.norm == "none"
    norm = norm_layer(o.norm)
    return ResnetGenerator(
        o.input_nc, o.output_nc, ngf=o.ngf, norm=norm, n_blocks=n_blocks, dropout=o.dropout, bias=bias
    )


def _unet(o: GeneratorOptions, n_downs: int) -> nn.Module:
    from models.networks.layers import norm_layer
    from models.networks.unet import UnetGenerator

    bias = o.norm == "none"
    norm = norm_layer(o.norm)
    return UnetGenerator(o.input_nc, o.output_nc, n_downs=n_downs, ngf=o.ngf, norm=norm, dropout=o.dropout, bias=bias)


def _residual_unet(o: GeneratorOptions) -> nn.Module:
    from models.networks.layers import norm_layer
    from models.networks.residual_unet import ResidualUnet

    return ResidualUnet(o.input_nc, o.output_nc, n_downs=5, ngf=o.ngf, norm=norm_layer(o.norm))


GENERATORS: dict[str, Callable[[GeneratorOptions], nn.Module]] = {
    "hybrid": _hybrid,
    "resnet_9blocks": lambda o: _resnet(o, 9),
    "resnet_6blocks": lambda o: _resnet(o, 6),
    "unet_32": lambda o: _unet(o, 5),
    "unet_128": lambda o: _unet(o, 7),
    "unet_256": lambda o: _unet(o, 8),
    "unet_residual": _residual_unet,
}


def _patch(o: DiscriminatorOptions, in_channels: int, n_layers: int, norm: Norm, bias: bool) -> nn.Module:
    from models.networks.patchgan import PatchDiscriminator

    return PatchDiscriminator(in_channels, ndf=o.ndf, n_layers=n_layers, norm=norm, bias=bias)


def _pixel(o: DiscriminatorOptions, in_channels: int, norm: Norm, bias: bool) -> nn.Module:
    from models.networks.patchgan import PixelDiscriminator

    return PixelDiscriminator(in_channels, ndf=o.ndf, norm=norm, bias=bias)


# arguments: options, input channels, normalisation, and whether the convolutions before it have a bias
DISCRIMINATORS: dict[str, Callable[[DiscriminatorOptions, int, Norm, bool], nn.Module]] = {
    "basic": lambda o, channels, norm, bias: _patch(o, channels, 3, norm, bias),
    "n_layers": lambda o, channels, norm, bias: _patch(o, channels, o.n_layers_D, norm, bias),
    "pixel": _pixel,
}

CONVOLUTIONAL = chosen(netG=[name for name in GENERATORS if name != "hybrid"])
DROPPING = chosen(netG=[name for name in GENERATORS if name not in ("hybrid", "unet_residual")])
SCALED_INIT = Need(
    "another --init_type than kaiming, or batch normalisation",
    lambda o: o.init_type != "kaiming" or "batch" in (o.norm, getattr(o, "norm_D", "")),
)


@dataclass(frozen=True)
class GeneratorOptions(HybridOptions):
    """Which generator, how wide, how initialised."""

    input_nc: int = flag(1, "image channels of domain A; grey only", group="networks", choices=(1,))
    output_nc: int = flag(1, "image channels of domain B; grey only", group="networks", choices=(1,))
    netG: str = flag("hybrid", "generator", group="networks", choices=GENERATORS, alias=("net_G",))
    ngf: int = flag(
        64, "generator channels in the first layer", group="networks", low=1, high=1024, needs=CONVOLUTIONAL
    )
    norm: str = flag("instance", "normalisation in generators and discriminators", group="networks", choices=NORMS)
    dropout: bool = flag(False, "dropout in the generators; --no_dropout is accepted", group="networks", needs=DROPPING)
    init_type: str = flag("normal", "weight initialisation", group="networks", choices=INITS)
    init_gain: float = flag(
        0.02, "scale of normal, xavier and orthogonal initialisation", group="networks", low=0, needs=SCALED_INIT
    )


@dataclass(frozen=True)
class DiscriminatorOptions:
    """Which discriminator; its initialisation is the generator's."""

    netD: str = flag("basic", "discriminator: basic is n_layers with 3", group="networks", choices=DISCRIMINATORS)
    ndf: int = flag(64, "discriminator channels in the first layer", group="networks", low=1, high=1024)
    n_layers_D: int = flag(
        3, "stride-2 layers of --netD n_layers", group="networks", low=1, high=6, needs=chosen(netD=("n_layers",))
    )
    norm_D: str = flag(
        "same",
        "normalisation in discriminators: same as --norm; none lets them see how bright an image is",
        group="networks",
        choices=("same", *NORMS),
    )


def make_generator(options: GeneratorOptions) -> nn.Module:
    """Build and initialise the generator that `--netG` names."""
    from models.networks.layers import init_weights

    network = GENERATORS[options.netG](options)
    init_weights(network, options.init_type, options.init_gain)
    return network


def discriminator_norm(options: DiscriminatorOptions, generator: GeneratorOptions) -> str:
    """The discriminators' normalisation: --norm_D, or --norm if that is `same`."""
    return generator.norm if options.norm_D == "same" else options.norm_D


def make_discriminator(options: DiscriminatorOptions, generator: GeneratorOptions, in_channels: int) -> nn.Module:
    """Build and initialise the discriminator that `--netD` names, for images of `in_channels`."""
    from models.networks.layers import init_weights, norm_layer

    name = discriminator_norm(options, generator)
    network = DISCRIMINATORS[options.netD](options, in_channels, norm_layer(name), name == "none")
    init_weights(network, generator.init_type, generator.init_gain)
    return network
