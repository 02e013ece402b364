"""Residual generator of CycleGAN (Zhu et al. 2017, section 7.2, after Johnson et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.layers import Norm, check_multiple


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with reflection padding, added to their input: (N, C, H, W) -> same."""

    def __init__(self, channels: int, norm: Norm, *, dropout: bool, bias: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
            norm(channels),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
            norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResnetGenerator(nn.Module):
    """c7s1-ngf, two stride-2 convolutions, `n_blocks` residual blocks, two up-convolutions, c7s1, tanh.

    (N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1); H and W multiples of 4.
    """

    multiple = 4
    taps = (3, 6, 9, 13)  # of `hidden`: both stride-2 convolutions, the first and the fifth block (Park et al. 2020)

    def __init__(
        self, in_channels: int, out_channels: int, *, ngf: int, norm: Norm, n_blocks: int, dropout: bool, bias: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, ngf, 7, padding=3, padding_mode="reflect", bias=bias),
            norm(ngf),
            nn.ReLU(inplace=True),
        ]
        for channels in (ngf, 2 * ngf):
            layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=bias), norm(2 * channels), nn.ReLU(inplace=True)]
        layers += [ResnetBlock(4 * ngf, norm, dropout=dropout, bias=bias) for _ in range(n_blocks)]
        for channels in (4 * ngf, 2 * ngf):
            up = nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, norm(channels // 2), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(ngf, out_channels, 7, padding=3, padding_mode="reflect"), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def hidden(self, x: Tensor) -> list[Tensor]:
        """The image and hidden states of the encoder, from fine to coarse, (N, C, h, w) each."""
        states = [x]
        for index, layer in enumerate(self.layers[: self.taps[-1] + 1]):
            x = layer(x)
            if index in self.taps:
                states.append(x.clone())  # the activation after it works in place
        return states

    def forward(self, x: Tensor) -> Tensor:
        check_multiple("netG resnet", (x.shape[-2], x.shape[-1]), self.multiple)
        return self.layers(x)
