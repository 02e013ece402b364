"""Options of preprocessing_images.py: volumes of one's own, or the simulated benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from preprocessing.nifti import SLICE_AXES
from preprocessing.slicing import DEFAULT_PERCENTILES
from simulation.atrophy import MAX_SULCI_MM, MAX_VENTRICLES
from simulation.deformation import MAX_AMOUNT
from simulation.faults import FAULTS
from simulation.lesions import KINDS, MAX_COUNT
from simulation.presets import PRESETS, PROTOCOLS, Preset, find_preset, with_acquisition, with_timings
from util.errors import UserError
from util.schema import CommandLine, add_flags, build, flag

DEFAULT_PRESET = "same-contrast"
NEEDS = {"n_lesions": "lesions", "lesions_in": "lesions", "fault_probability": "faults"}  # the first is idle without
TIMINGS = {"tr": "tr_ms", "te": "te_ms", "ti": "ti_ms", "flip": "flip_deg"}  # of a sequence, by flag: --tr_A and so on
SETTINGS = {"thickness": "thickness_mm", "partial_fourier": "partial_fourier", "snr": "snr_wm"}  # of a protocol


@dataclass(frozen=True)
class OutputOptions:
    """What both kinds of input need."""

    out: str | None = flag(None, "the data folder to write (required)", group="output")
    bits: int = flag(16, "bits a pixel of the slice files", group="output", choices=(8, 16))
    overwrite: bool = flag(False, "replace the slices and manifest of an earlier run in --out", group="output")
    seed: int = flag(0, "same seed and input, same files", group="output", low=0)
    workers: int | None = flag(None, "volumes at a time; default: the processors", group="output", low=1)


@dataclass(frozen=True)
class VolumeOptions:
    """Volumes of one's own."""

    input_A: str | None = flag(None, "low-field NIfTI volumes: a folder or one file", group="volumes")
    input_B: str | None = flag(None, "high-field NIfTI volumes: a folder or one file", group="volumes")
    truth_A: str | None = flag(
        None, "high-field volumes of the same names on the grid of --input_A, for the metrics", group="volumes"
    )
    val_fraction: float = flag(0.1, "fraction of the subjects for validation", group="volumes", low=0, high=1)
    test_fraction: float = flag(0.2, "fraction of the subjects for testing", group="volumes", low=0, high=1)
    all_test: bool = flag(False, "every subject is for testing", group="volumes")
    slice_axis: str = flag(
        "auto",
        "towards right, anterior or superior; auto: thickest voxel side, else an axis of few slices, else S",
        group="volumes",
        choices=("auto", *SLICE_AXES),
    )
    window_low: float = flag(
        DEFAULT_PERCENTILES[0], "percentile inside the head that becomes 0", group="volumes", low=0, high=100
    )
    window_high: float = flag(
        DEFAULT_PERCENTILES[1], "percentile inside the head that becomes 1", group="volumes", low=0, high=100
    )
    check_data: bool = flag(
        False, "only list the volumes that cannot be used, in OUT/bad_files.csv too; status 2 if any", group="volumes"
    )
    skip_bad: bool = flag(False, "go on without volumes that cannot be used", group="volumes")


@dataclass(frozen=True)
class BenchmarkOptions:
    """The simulated benchmark."""

    n_train: int = flag(24, "training subjects of each domain; A and B have different ones", group="simulation", low=1)
    n_val: int = flag(4, "validation subjects, each in both domains", group="simulation", low=0)
    n_test: int = flag(12, "test subjects, each in both domains", group="simulation", low=0)
    matrix: int = flag(224, "pixels a side of a slice", group="simulation", low=32, high=512)
    protocol_A: str | None = flag(
        None, "scanner and sequence of A instead of the preset's", group="simulation", choices=tuple(PROTOCOLS)
    )
    protocol_B: str | None = flag(
        None, "scanner and sequence of B instead of the preset's", group="simulation", choices=tuple(PROTOCOLS)
    )
    tr_A: float | None = flag(None, "repetition time of A in ms; none: the protocol's", group="simulation", low=0)
    te_A: float | None = flag(None, "echo time of A in ms", group="simulation", low=0)
    ti_A: float | None = flag(None, "inversion time of A in ms", group="simulation", low=0)
    flip_A: float | None = flag(None, "flip angle of A in degrees", group="simulation", low=0, high=180)
    thickness_A: float | None = flag(
        None, "thickness of A's slices in mm; SNR changes in proportion", group="simulation", low=0.5, high=20
    )
    partial_fourier_A: float | None = flag(
        None, "share of A's phase-encoding lines that is measured", group="simulation", low=0.5, high=1
    )
    snr_A: float | None = flag(
        None, "white matter's signal in A over the noise of one channel", group="simulation", low=0.1
    )
    tr_B: float | None = flag(None, "repetition time of B in ms; none: the protocol's", group="simulation", low=0)
    te_B: float | None = flag(None, "echo time of B in ms", group="simulation", low=0)
    ti_B: float | None = flag(None, "inversion time of B in ms", group="simulation", low=0)
    flip_B: float | None = flag(None, "flip angle of B in degrees", group="simulation", low=0, high=180)
    thickness_B: float | None = flag(
        None, "thickness of B's slices in mm; SNR changes in proportion", group="simulation", low=0.5, high=20
    )
    partial_fourier_B: float | None = flag(
        None, "share of B's phase-encoding lines that is measured", group="simulation", low=0.5, high=1
    )
    snr_B: float | None = flag(
        None, "white matter's signal in B over the noise of one channel", group="simulation", low=0.1
    )
    nifti: bool = flag(
        False, "write whole volumes too: both fields, truth, labels, lesions, under OUT/nifti", group="simulation"
    )
    anatomy: str | None = flag(
        None,
        "head to scan instead of the embedded one: NIfTI of six tissue fractions, or of FreeSurfer or SynthSeg labels",
        group="simulation",
    )
    deformation: float = flag(
        1.0, "how much heads differ in shape; 0: not at all", group="simulation", low=0, high=MAX_AMOUNT
    )
    ventricles: float = flag(
        1.0, "volume of the lateral ventricles, times what it is", group="simulation", low=1, high=MAX_VENTRICLES
    )
    sulci_mm: float = flag(
        0.0,
        "mm that CSF eats into the cortex from either bank of a sulcus",
        group="simulation",
        low=0,
        high=MAX_SULCI_MM,
    )
    lesions: str | None = flag(
        None, "kind of lesions, the same in both fields", group="simulation", choices=tuple(KINDS)
    )
    n_lesions: int = flag(3, "lesions a subject, with --lesions", group="simulation", low=1, high=MAX_COUNT)
    lesions_in: str = flag(
        "test", "whose heads have them: a split's, or all", group="simulation", choices=("test", "val", "train", "all")
    )
    faults: str | None = flag(
        None,
        f"faults that scans of A may have, separated by commas, or all: {', '.join(FAULTS)}",
        group="simulation",
    )
    fault_probability: float = flag(
        0.3, "probability of each of --faults in a scan of A", group="simulation", low=0, high=1
    )

    @property
    def fault_names(self) -> tuple[str, ...]:
        """The faults asked for.

        Raises: UserError for an unknown one.
        """
        names = FAULTS if self.faults == "all" else tuple(self.faults.split(",")) if self.faults else ()
        for name in names:
            if name not in FAULTS:
                raise UserError(f"--faults {name}: unknown, choose from {', '.join(FAULTS)}, or all")
        return names

    def preset(self, name: str) -> Preset:
        """The preset of that name with the protocols and timings asked for.

        Raises: UserError for a timing that the sequence does not have or cannot take.
        """
        chosen = find_preset(name)
        protocols = []
        for domain, protocol, other in (("A", chosen.low, self.protocol_A), ("B", chosen.high, self.protocol_B)):
            timings = {key: getattr(self, f"{name}_{domain}") for name, key in TIMINGS.items()}
            flags = ", ".join(f"--{name}_{domain}" for name, key in TIMINGS.items() if timings[key] is not None)
            settings = {key: getattr(self, f"{name}_{domain}") for name, key in SETTINGS.items()}
            timed = with_timings(PROTOCOLS[other] if other else protocol, flags, **timings)
            protocols.append(with_acquisition(timed, **settings))
        return Preset(chosen.name, *protocols)


@dataclass(frozen=True)
class PreprocessOptions:
    """`simulate` is the preset of the benchmark, or None for volumes of one's own."""

    simulate: str | None
    output: OutputOptions
    volumes: VolumeOptions
    benchmark: BenchmarkOptions


def parse(argv: Sequence[str]) -> PreprocessOptions:
    """Parse and check the command line of preprocessing_images.py.

    Raises: UserError for a value out of range, options that exclude each other, or a missing one.
    """
    parser = CommandLine(
        prog="preprocessing_images.py",
        description="Volumes, or the simulated benchmark, become slices, foreground masks and a manifest.",
    )
    for schema in (OutputOptions, VolumeOptions):
        add_flags(parser, schema)
    parser.add_argument_group("simulation").add_argument(
        "--simulate",
        nargs="?",
        const=DEFAULT_PRESET,
        metavar="PRESET",
        choices=tuple(PRESETS),
        help=f"write the embedded paired benchmark instead of reading volumes; PRESET is one of {', '.join(PRESETS)} "
        f"[default: {DEFAULT_PRESET}]",
    )
    add_flags(parser, BenchmarkOptions)
    flat = vars(parser.parse_args(argv))
    options = PreprocessOptions(
        flat["simulate"], build(OutputOptions, flat), build(VolumeOptions, flat), build(BenchmarkOptions, flat)
    )
    _check_together(options)
    return options


def _check_together(options: PreprocessOptions) -> None:
    volumes = options.volumes
    if not options.output.out:
        raise UserError("--out is missing: name the data folder to write")
    if options.simulate is not None:
        _check_unused(volumes, "is for volumes of one's own, it cannot stand beside --simulate")
        for name, needed in NEEDS.items():
            if _given(options.benchmark, name) and not _given(options.benchmark, needed):
                raise UserError(f"--{name} {getattr(options.benchmark, name)}: says something about --{needed}, add it")
        return
    if not volumes.input_A and not volumes.input_B:
        raise UserError("nothing to do: give --input_A and --input_B, or --simulate")
    _check_unused(options.benchmark, "is for --simulate, it cannot stand beside --input_A and --input_B")
    if volumes.truth_A and not volumes.input_A:
        raise UserError("--truth_A needs --input_A, whose truth it is")
    if not volumes.window_low < volumes.window_high:
        raise UserError(f"--window_low {volumes.window_low} must be below --window_high {volumes.window_high}")
    if volumes.val_fraction + volumes.test_fraction > 1:
        raise UserError(
            f"--val_fraction {volumes.val_fraction} and --test_fraction {volumes.test_fraction} add up to more than 1"
        )


def _check_unused(options: VolumeOptions | BenchmarkOptions, reason: str) -> None:
    for field in dataclasses.fields(options):
        if _given(options, field.name):
            raise UserError(f"--{field.name} {reason}")


def _given(options: VolumeOptions | BenchmarkOptions, name: str) -> bool:
    """Whether an option is not what it is by default."""
    return bool(getattr(options, name) != type(options).__dataclass_fields__[name].default)
