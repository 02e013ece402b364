"""Names of rows and measures as the reports show them, their order, and a plain sentence for each number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from evaluation.paired import HIGHER_IS_BETTER

ORDER = (  # of columns; others follow in the order in which they come
    *("psnr_fit", "psnr", "ssim", "nrmse", "mae", "edge_corr", "slice_consistency", "air_leak"),
    *("ms_ssim", "psnr_full", "ssim_full", "lpips"),
)
PLAIN = {
    "psnr_fit": "How close the synthesis is to the true image, whatever the brightness and contrast chosen for "
    "display. Higher is better; 1 dB more is a fifth less squared error.",
    "psnr": "How close the synthesis is to the true image with its brightness as it is. Higher is better.",
    "ssim": "How alike small neighbourhoods look in the synthesis and the truth. 1 is the same image.",
    "nrmse": "The size of the error as a part of the size of the true signal. 0 is none.",
    "mae": "The average error of a voxel, where the whole range from black to white is 1. 0 is none.",
    "edge_corr": "Whether edges are where the truth has them, whatever the contrast. 1 is all of them.",
    "slice_consistency": "Whether the synthesis changes from slice to slice as the truth does. 1 is the same; slices "
    "that do not fit together lower it.",
    "air_leak": "Signal in the air beside the head, as a part of that in the head. 0 is none.",
    "ms_ssim": "Like ssim, at several sizes at once, and for the whole slice. 1 is the same image.",
    "psnr_full": "Like psnr, for the whole slice. Black air around the head makes it high.",
    "ssim_full": "Like ssim, for the whole slice. Black air around the head makes it high.",
    "lpips": "How different the synthesis and the truth look to a network trained on photographs. 0 is the same image.",
    "protocol": "Scores as other groups compute them, to be held against their tables and nothing else.",
    "kd_texture": "Whether the synthesis is as rough or smooth as real high-field slices. Lower is better; compare it "
    "with the row real_B.",
    "kid": "Whether the synthesised slices as a set look like real ones to a network trained on photographs. Lower is "
    "better; it says nothing about one patient.",
    "fid": "Like kid; needs thousands of slices to mean something. Lower is better.",
    "is": "A figure from work on photographs, given because others give it. It says little about brains.",
    "kd_slice": "Whether the synthesised slices as a set show the same anatomy as real ones. Lower is better.",
    "fd_slice": "Like kd_slice. Lower is better.",
    "level_error_mm": "How far, along the body, a slice lies from the one that SGP matches to it. Lower is better.",
    "lsc.psnr": "How well LSC repairs slices with rotated and missing blocks. Higher is better.",
    "ci95": "If the test were repeated with other people, the average would lie in such a range 95 times of 100.",
    "by_person": "The same measures for each person: a good average may hide one for whom the synthesis is worse.",
    "verdict": "Whether the network is better than simple methods that need no training of a network.",
    "slice_psnr": "psnr_fit of a single slice: finds the slices with the largest errors. Higher is better.",
    "slice_jump": "How much a slice stands out between its neighbours, as a multiple of how much the input does there.",
    "slice_air": "Signal in the air of a single slice, as a part of that in the head. 0 is none.",
    "trust": "Where the synthesis may be wrong, told without knowing the truth. Bright places are not to be trusted; "
    "dark ones may be wrong too.",
    "trust.auc": "How well the map finds the places with the largest errors. 1 is all of them first, 0.5 is chance.",
    "trust.rank_correlation": "Whether places with a larger expected error have a larger true one. 1 is always.",
    "trust.slice_correlation": "Whether the slices that are least trusted are those with the largest errors.",
    "trust.bias_db": "Whether the expected errors are as large as the true ones. 0 is right.",
    "slice_trust": "How close to the truth a slice is expected to be. Lower is less trusted.",
}
ROW_NAMES = {
    "fake_B": "fake_B (this model)",
    "real_B": "real_B (real against real)",
    "identity": "identity (input itself)",
    "histogram": "histogram (matched to trainB)",
    "classical": "classical (denoised, mapped, sharpened)",
    "sgp": "SGP",
    "same_p": "same relative level p",
    "same_index": "same slice index",
    "random": "random",
    "thumbnail": "24x24 thumbnails",
    "aligned": "aligned level of volumes",
}
LSC_ROWS = {
    "restored": "restored by LSC",
    "solver": "untrained solver, then biharmonic filling",
    "best_filter": "untrained solver, then the best filling",
    "corrupted": "corrupted, input of LSC",
    "restored_train": "restored by LSC, training slices",
}
KIND_NAMES = {
    "real_A": "input: low field",
    "fake_B": "synthesis",
    "truth": "truth: high field",
    "error": "error: synthesis - truth",
    "trust": "expected error: bright is not to be trusted",
}


def in_order(measures: Iterable[str]) -> list[str]:
    """Measures in the reports' order; those that are not in it come last."""
    found = list(dict.fromkeys(measures))
    return [*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER)]


def higher_is_better(measure: str) -> bool | None:
    """Which way is better; None for a measure that this list does not know."""
    return HIGHER_IS_BETTER.get(measure)


def plain(measure: str, definitions: Mapping[str, str]) -> str:
    """The plain sentence of a measure; its definition if it has none."""
    return PLAIN.get(measure, definitions.get(measure, ""))


def number(value: float | None) -> str:
    """Four significant digits, or a dash for a null, whose reason is given below the tables."""
    return "-" if value is None else f"{value:#.4g}"
