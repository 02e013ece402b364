"""Options that change how fast a training is and how much memory it takes, and not what it computes."""

from __future__ import annotations

import torch
from torch import nn

from models.base_model import BaseModel
from models.networks.hybrid import Fuse, HybridGenerator, TokenUp
from models.networks.layers import recompute
from models.networks.resnet import ResnetBlock
from models.networks.structured_attention import StructuredBlock
from models.networks.unet import UnetGenerator
from options.train_options import TrainOptions
from util.errors import UserError
from util.processes import ALONE, Processes

RECOMPUTED = (StructuredBlock, TokenUp, Fuse, ResnetBlock, UnetGenerator)


def accelerate(model: BaseModel, options: TrainOptions, processes: Processes = ALONE) -> None:
    """Apply --channels_last and --checkpoint_activations.

    Raises:
        UserError: options that exclude each other, or several processes.
    """
    if processes.size > 1 and _batch_statistics(model):
        raise UserError("--norm batch: each of several processes would have its own statistics; take instance or none")
    if options.channels_last:
        model.to(memory_format=torch.channels_last)
    if options.checkpoint_activations:
        _recompute_generators(model, options)


def compile_networks(model: BaseModel, options: TrainOptions, device: torch.device) -> None:
    """With --compile, compile the costly networks where they are; weights, names and checkpoints stay what they were.

    It happens at the first step; what measures a step before it should come first.

    Raises:
        UserError: this machine cannot compile.
    """
    if not options.compile:
        return
    try:
        torch.compile(lambda x: (x * 2).sin())(torch.ones(4, device=device))
    except Exception as error:  # the compilers' backends raise many kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"--compile: cannot compile on this machine ({reason}); leave it out") from error
    for network in model.costly_networks():
        for module in network.modules():
            if isinstance(module, HybridGenerator):
                module.dense = True
        network.compile()


def _recompute_generators(model: BaseModel, options: TrainOptions) -> None:
    if options.compile:
        raise UserError(
            "--checkpoint_activations and --compile exclude each other: a compiled network chooses itself what it keeps"
        )
    if _batch_statistics(model):
        raise UserError(
            "--checkpoint_activations: batch statistics would be counted twice; take --norm instance or none"
        )
    for network in model.costly_networks():
        recompute(network, RECOMPUTED)


def _batch_statistics(model: BaseModel) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
