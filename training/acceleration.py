"""Options that change the speed and memory of training but not its result."""

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
        UserError: options that exclude each other, or batch statistics in several processes.
    """
    if processes.size > 1 and _batch_statistics(model):
        raise UserError("--norm batch: each process would have its own batch statistics; use --norm instance or none")
    if options.channels_last:
        model.to(memory_format=torch.channels_last)
    if options.checkpoint_activations:
        _recompute_generators(model, options)


def compile_networks(model: BaseModel, options: TrainOptions, device: torch.device) -> None:
    """With --compile, compile the costly networks in place; weights, their names and checkpoints do not change.

    The compilation itself happens in the first step, so measure the memory of a step before this call.

    Raises:
        UserError: this machine cannot compile.
    """
    if not options.compile:
        return
    try:
        torch.compile(lambda x: (x * 2).sin())(torch.ones(4, device=device))
    except Exception as error:  # the compiler's backends raise many kinds of errors
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
            "--checkpoint_activations and --compile exclude each other: the compiler itself decides what to keep"
        )
    if _batch_statistics(model):
        raise UserError(
            "--checkpoint_activations: batch statistics would be updated twice; use --norm instance or none"
        )
    for network in model.costly_networks():
        recompute(network, RECOMPUTED)


def _batch_statistics(model: BaseModel) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
