"""Sets of options by the names users type: `--preset`. They are defaults; an option that is typed wins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from models import MODELS


@dataclass(frozen=True)
class Preset:
    """Values by option; a model that lacks an option goes without it.

    of_generators: for models that synthesise alone; a pretext task by itself keeps its own length and batches.
    of_model: what one model needs otherwise.
    """

    about: str
    values: Mapping[str, Any]
    of_generators: Mapping[str, Any] = field(default_factory=dict)
    dataset_mode: str | None = None  # None: the model's own
    of_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, model: str, options: Collection[str]) -> dict[str, Any]:
        """The values for a model with these options.

        A model without refinement trains for as many epochs more, so that it sees as many images.
        """
        values = {**self.values, **(self.of_generators if MODELS[model].Options.can_synthesise else {})}
        if "n_epochs_refine" in values and "n_epochs_refine" not in options and "n_epochs_decay" in values:
            values["n_epochs_decay"] += values["n_epochs_refine"]
        return {name: value for name, value in values.items() if name in options} | dict(self.of_model.get(model, {}))


OF_SMALL_SLICES: Mapping[str, Mapping[str, Any]] = {
    "pta_unet": {"netG": "unet_128"},  # a U-Net that 128 px suit
    # the published weight, 0.5, leaves `cut` below untrained baselines after so few images, and so does 50; 20 leaves
    # `unsb` there, whose L_SB holds it to its input as well (docs/benchmarks/log.md has its rate and passes, too)
    "cut": {"lambda_nce": 20.0, "lambda_nce_idt": 20.0, "lr": 1e-4},
    "unsb": {"lambda_nce": 5.0, "lambda_nce_idt": 5.0, "lr": 5e-5, "sb_passes": 3},
    "pix2pix": {"lambda_l1": 1000.0},  # the published weight, 100, leaves outlines jagged
}

PRESETS: dict[str, Preset] = {
    # what scripts/demo.sh trains: slices of 128 px and small networks keep a step at a second on two processors
    "demo": Preset(
        "what scripts/demo.sh trains on simulated slices of 128 px, in some ten minutes on two processors",
        values={
            "load_size": 128,
            "level_crop": 0.0,  # simulated heads all show the same part of the body
            "sgp_input": 48,
            "sgp_patch": 12,
            "sgp_width": 128,
            "sgp_depth": 3,
            "sgp_embedding": 128,
            "sgp_batch_size": 32,
            "sgp_lr": 5e-4,
            "sgp_steps": 1000,
            "lsc_features": 8,
            "lsc_lr": 3e-3,
            "lsc_steps": 300,
        },
        of_generators={
            "hybrid_width": 128,
            "hybrid_depth": 2,
            "hybrid_heads": 4,
            "hybrid_mlp": 256,
            "hybrid_features": 8,
            "ngf": 16,
            "ndf": 16,
            "flip": True,
            "batch_size": 2,
            "n_epochs": 1,
            "n_epochs_decay": 1,
            "n_epochs_refine": 6,
            "refine_physics": 0.4,
            "refine_ssim": 3.0,
            "lambda_ssim": 3.0,
            "lr": 6e-4,
            "lf_noise": "auto",
            "lf_band": "auto",
            "lf_bias": "auto",
        },
        of_model=OF_SMALL_SLICES,
    ),
    # the command of the published code, and the sizes and rates that it leaves to defaults
    "published": Preset(
        "the published sizes and lengths: 224 px, batches of 16, 100 + 50 epochs; for a GPU",
        values={
            "load_size": 224,
            "preprocess": "resize",
            "flip": False,
            "batch_size": 16,
            "n_epochs": 100,
            "n_epochs_decay": 50,
            "save_epoch_freq": 5,
            "level_tolerance": 0.03,
            "sgp_input": 120,
            "sgp_patch": 16,
            "sgp_width": 256,
            "sgp_depth": 6,
            "sgp_heads": 4,
            "sgp_embedding": 512,
            "sgp_batch_size": 16,
            "lsc_blocks": 24,
            "mask_ratio": 0.2,
            "lsc_features": 16,
        },
        of_generators={
            "input_nc": 1,
            "output_nc": 1,
            "netG": "hybrid",
            "hybrid_width": 768,
            "hybrid_depth": 4,
            "hybrid_heads": 12,
            "hybrid_mlp": 3072,
            "hybrid_patch": 16,
            "hybrid_features": 16,
            "fth": 0.5,
            "norm": "instance",
            "init_type": "normal",
            "init_gain": 0.02,
            "netD": "basic",
            "ndf": 64,
            "gan_mode": "lsgan",
            "real_label": 0.9,
            "fake_label": 0.1,
            "pool_size": 50,
            "lr": 2e-4,
            "beta1": 0.5,
            "lr_policy": "linear",
        },
        dataset_mode="unaligned_mask",
        of_model={"pta_unet": {"load_size": 256}},  # the multiple of unet_256 that is nearest to 224
    ),
    # between the two, chosen for its cost alone; on simulated heads no better than `demo` (docs/benchmarks/log.md)
    "small": Preset(
        "networks between the two at 128 px, for some hours of a laptop; on simulated heads no better than demo",
        values={
            "load_size": 128,
            "sgp_input": 64,
            "sgp_patch": 8,
            "sgp_width": 128,
            "sgp_depth": 4,
            "sgp_embedding": 128,
            "sgp_batch_size": 32,
            "sgp_lr": 3e-4,
            "sgp_steps": 2000,
            "lsc_features": 8,
            "lsc_lr": 2e-3,
            "lsc_steps": 1000,
        },
        of_generators={
            "hybrid_width": 192,
            "hybrid_depth": 3,
            "hybrid_heads": 6,
            "hybrid_mlp": 384,
            "hybrid_features": 8,
            "ngf": 24,
            "ndf": 24,
            "flip": True,
            "batch_size": 4,
            "n_epochs": 5,
            "n_epochs_decay": 5,
            "n_epochs_refine": 10,
            "refine_physics": 0.4,
            "refine_ssim": 3.0,
            "lambda_ssim": 3.0,
            "lr": 4e-4,
            "lf_noise": "auto",
            "lf_band": "auto",
            "lf_bias": "auto",
        },
        of_model=OF_SMALL_SLICES,
    ),
}
