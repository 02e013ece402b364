"""The networks, by the names that `--netG` and `--netD` take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.networks.hybrid import HybridGenerator, HybridOptions
from models.networks.layers import INITS, NORMS, init_weights, norm_layer
from models.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from models.networks.resnet import ResnetGenerator
from models.networks.unet import UnetGenerator
from util.schema import flag


@dataclass(frozen=True)
class GeneratorOptions(HybridOptions):
    """Which generator, how wide, how initialised."""

    input_nc: int = flag(1, "image channels of domain A; grey only", group="networks", choices=(1,))
    output_nc: int = flag(1, "image channels of domain B; grey only", group="networks", choices=(1,))
    netG: str = flag(
        "hybrid",
        "generator",
        group="networks",
        choices=("hybrid", "resnet_9blocks", "resnet_6blocks", "unet_128", "unet_256"),
        alias=("net_G",),
    )
    ngf: int = flag(64, "generator channels in the first layer (resnet, unet)", group="networks", low=1, high=1024)
    norm: str = flag("instance", "normalisation in generators and discriminators", group="networks", choices=NORMS)
    dropout: bool = flag(False, "dropout in resnet and unet generators; --no_dropout is accepted", group="networks")
    init_type: str = flag("normal", "weight initialisation", group="networks", choices=INITS)
    init_gain: float = flag(0.02, "scale of normal, xavier and orthogonal initialisation", group="networks", low=0)


@dataclass(frozen=True)
class DiscriminatorOptions:
    """Which discriminator; its initialisation is the generator's."""

    netD: str = flag(
        "basic", "discriminator: basic is n_layers with 3", group="networks", choices=("basic", "n_layers", "pixel")
    )
    ndf: int = flag(64, "discriminator channels in the first layer", group="networks", low=1, high=1024)
    n_layers_D: int = flag(3, "stride-2 layers of --netD n_layers", group="networks", low=1, high=6)
    norm_D: str = flag(
        "same",
        "normalisation in discriminators: same as --norm; none lets them see how bright an image is",
        group="networks",
        choices=("same", *NORMS),
    )


def _hybrid(o: GeneratorOptions) -> nn.Module:
    return HybridGenerator(o.input_nc, o.output_nc, sizes=o, norm=norm_layer(o.norm))


def _resnet(o: GeneratorOptions, n_blocks: int) -> nn.Module:
    bias = o.norm != "batch" and o.norm != "instance"
    norm = norm_layer(o.norm)
    return ResnetGenerator(
        o.input_nc, o.output_nc, ngf=o.ngf, norm=norm, n_blocks=n_blocks, dropout=o.dropout, bias=bias
    )


def _unet(o: GeneratorOptions, n_downs: int) -> nn.Module:
    bias = o.norm != "batch" and o.norm != "instance"
    norm = norm_layer(o.norm)
    return UnetGenerator(o.input_nc, o.output_nc, n_downs=n_downs, ngf=o.ngf, norm=norm, dropout=o.dropout, bias=bias)


GENERATORS: dict[str, Callable[[GeneratorOptions], nn.Module]] = {
    "hybrid": _hybrid,
    "resnet_9blocks": lambda o: _resnet(o, 9),
    "resnet_6blocks": lambda o: _resnet(o, 6),
    "unet_128": lambda o: _unet(o, 7),
    "unet_256": lambda o: _unet(o, 8),
}


def make_generator(options: GeneratorOptions) -> nn.Module:
    """Build and initialise the generator that `--netG` names."""
    network = GENERATORS[options.netG](options)
    init_weights(network, options.init_type, options.init_gain)
    return network


def discriminator_norm(options: DiscriminatorOptions, generator: GeneratorOptions) -> str:
    """The discriminators' normalisation: --norm_D, or --norm if that is `same`."""
    return generator.norm if options.norm_D == "same" else options.norm_D


def make_discriminator(options: DiscriminatorOptions, generator: GeneratorOptions, in_channels: int) -> nn.Module:
    """Build and initialise the discriminator that `--netD` names, for images of `in_channels`."""
    name = discriminator_norm(options, generator)
    norm, bias = norm_layer(name), name == "none"
    if options.netD == "pixel":
        network: nn.Module = PixelDiscriminator(in_channels, ndf=options.ndf, norm=norm, bias=bias)
    else:
        n_layers = 3 if options.netD == "basic" else options.n_layers_D
        network = PatchDiscriminator(in_channels, ndf=options.ndf, n_layers=n_layers, norm=norm, bias=bias)
    init_weights(network, generator.init_type, generator.init_gain)
    return network
