"""Options of preprocessing_images.py: volumes of one's own, or the simulated benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from data.folder.manifest import SPLITS
from preprocessing.choices import DEFAULT_PERCENTILES, SLICE_AXES
from simulation.extent import FOV_MM
from simulation.lesion_kinds import KINDS
from simulation.limits import FAULTS, MAX_AMOUNT, MAX_COUNT, MAX_SULCI_MM, MAX_VENTRICLES, OLDEST, YOUNGEST
from simulation.people import Roles, chosen_people
from simulation.presets import PRESETS, PROTOCOLS, Preset, find_preset, with_acquisition, with_timings
from util.errors import UserError
from util.needs import Need, Together, given, refuse_idle
from util.schema import CommandLine, add_flags, build, flag

if TYPE_CHECKING:
    from simulation.benchmark import Benchmark

DEFAULT_PRESET = "same-contrast"
TIMINGS = {"tr": "tr_ms", "te": "te_ms", "ti": "ti_ms", "flip": "flip_deg"}  # of a sequence, by flag: --tr_A and so on
SETTINGS = {"thickness": "thickness_mm", "partial_fourier": "partial_fourier"}  # of a protocol

VOLUMES = Need(
    "volumes of one's own", lambda o: o.simulate is None, idle="beside --simulate: it is for volumes of one's own"
)
SIMULATED = given("simulate")
FREE = Need("no --like", lambda o: o.like is None, idle="beside --like, which gives it")
DIVIDED = Need("no --all_test", lambda o: not o.all_test, idle="beside --all_test")
RANDOM = Need(
    "--simulate, or subjects to divide between splits",
    lambda o: o.simulate is not None or not (o.all_test or o.val_fraction == o.test_fraction == 0),
    idle="where no subjects are divided between splits",
)
OF_PEOPLE = Need(
    "the people's heads", lambda o: not o.anatomy, idle="beside --anatomy: every subject has that one head then"
)
LESIONED = Need(
    "subjects in the split of --lesions_in",
    lambda o: {"val": o.n_val, "test": o.n_test}.get(o.lesions_in, o.n_train) > 0,
)
_volumes = partial(flag, group="volumes", needs=VOLUMES)
_simulation = partial(flag, group="simulation", needs=SIMULATED)


@dataclass(frozen=True)
class OutputOptions:
    """What both kinds of input need."""

    out: str | None = flag(None, "the data folder to write (required)", group="output")
    bits: int = flag(16, "bits a pixel of the slice files", group="output", choices=(8, 16))
    overwrite: bool = flag(False, "replace the slices and manifest of an earlier run in --out", group="output")
    seed: int = flag(0, "same seed and input, same files", group="output", low=0, needs=RANDOM)
    workers: int | None = flag(None, "volumes at a time; none: the processors", group="output", low=1)


@dataclass(frozen=True)
class VolumeOptions:
    """Volumes of one's own."""

    input_A: str | None = _volumes(
        None, "low-field volumes: NIfTI, a folder or one file; or DICOM, with all folders below"
    )
    input_B: str | None = _volumes(None, "high-field volumes, likewise")
    contrast_A: str | None = _volumes(
        None,
        "take only volumes of --input_A whose names end in this, as T2w in sub-01_T2w.nii.gz or of a DICOM series",
        needs=(VOLUMES, given("input_A")),
    )
    contrast_B: str | None = _volumes(None, "likewise of --input_B", needs=(VOLUMES, given("input_B")))
    truth_A: str | None = _volumes(
        None, "high-field volumes of the same names on the grid of --input_A, for the metrics"
    )
    val_fraction: float = _volumes(
        0.1, "fraction of the people for validation", low=0, high=1, needs=(VOLUMES, DIVIDED)
    )
    test_fraction: float = _volumes(0.2, "fraction of the people for testing", low=0, high=1, needs=(VOLUMES, DIVIDED))
    all_test: bool = _volumes(False, "every subject is for testing")
    slice_axis: str = _volumes(
        "auto",
        "towards right, anterior or superior, the same for all volumes; auto: that of most volumes of A with thick or "
        "few slices, else of B",
        choices=("auto", *SLICE_AXES),
        needs=(VOLUMES, FREE),
    )
    pixel_mm: float | None = _volumes(
        None,
        "side of the square pixels of all slices; none: the finer domain's median, at least 1/512 of --fov_mm",
        low=0.01,
        high=20,
        needs=(VOLUMES, FREE),
    )
    fov_mm: float | None = _volumes(
        None,
        "side of the square field of view of all slices; none: the wider domain's median, at most 256",
        low=1,
        high=1000,
        needs=(VOLUMES, FREE),
    )
    thickness_mm: float | None = _volumes(
        None,
        "average the slices of volumes with thinner ones over so many mm",
        low=0.1,
        high=50,
        needs=(VOLUMES, FREE),
    )
    like: str | None = _volumes(
        None, "a data folder whose slice axis, pixels, field of view and thickness are taken, for volumes to test"
    )
    window_low: float = _volumes(DEFAULT_PERCENTILES[0], "percentile inside the head that becomes 0", low=0, high=100)
    window_high: float = _volumes(DEFAULT_PERCENTILES[1], "percentile inside the head that becomes 1", low=0, high=100)
    check_data: bool = _volumes(
        False, "only list the volumes that cannot be used, in OUT/bad_files.csv too; status 2 if any"
    )
    skip_bad: bool = _volumes(False, "go on without volumes that cannot be used")


@dataclass(frozen=True)
class BenchmarkOptions:
    """The simulated benchmark."""

    n_train: int = _simulation(24, "training subjects of each domain, of different people in A and B", low=1)
    n_val: int = _simulation(4, "validation subjects, each in both domains", low=0)
    n_test: int = _simulation(12, "test subjects, each in both domains", low=0)
    people: str | None = _simulation(
        None,
        "whose heads, separated by commas: NAME keeps a person's split, trainA=NAME, trainB=NAME, val=NAME or "
        "test=NAME moves the person there; none: all 17, colin27 and head_01 to head_16",
        needs=(SIMULATED, OF_PEOPLE),
    )
    matrix: int = _simulation(
        224,
        "pixels a side of a slice of 240 mm; where they are larger than B's voxels, voxels and SNR of both fields grow "
        "with them",
        low=32,
        high=512,
    )
    protocol_A: str | None = _simulation(
        None, "scanner and sequence of A instead of the preset's", choices=tuple(PROTOCOLS)
    )
    protocol_B: str | None = _simulation(
        None, "scanner and sequence of B instead of the preset's", choices=tuple(PROTOCOLS)
    )
    tr_A: float | None = _simulation(None, "repetition time of A in ms; none: the protocol's", low=0)
    te_A: float | None = _simulation(None, "echo time of A in ms", low=0)
    ti_A: float | None = _simulation(None, "inversion time of A in ms", low=0)
    flip_A: float | None = _simulation(None, "flip angle of A in degrees", low=0, high=180)
    thickness_A: float | None = _simulation(
        None, "thickness of A's slices in mm; SNR changes in proportion", low=0.5, high=20
    )
    partial_fourier_A: float | None = _simulation(
        None, "share of A's phase-encoding lines that is measured", low=0.5, high=1
    )
    snr_A: float | None = _simulation(
        None, "white matter's signal in A over the noise of one channel, at this --matrix", low=0.1
    )
    tr_B: float | None = _simulation(None, "repetition time of B in ms; none: the protocol's", low=0)
    te_B: float | None = _simulation(None, "echo time of B in ms", low=0)
    ti_B: float | None = _simulation(None, "inversion time of B in ms", low=0)
    flip_B: float | None = _simulation(None, "flip angle of B in degrees", low=0, high=180)
    thickness_B: float | None = _simulation(
        None, "thickness of B's slices in mm; SNR changes in proportion", low=0.5, high=20
    )
    partial_fourier_B: float | None = _simulation(
        None, "share of B's phase-encoding lines that is measured", low=0.5, high=1
    )
    snr_B: float | None = _simulation(
        None, "white matter's signal in B over the noise of one channel, at this --matrix", low=0.1
    )
    nifti: bool = _simulation(False, "write whole volumes too: both fields, truth, labels, lesions, under OUT/nifti")
    anatomy: str | None = _simulation(
        None,
        "one head for all subjects instead of the people's: NIfTI of six tissue fractions, or of FreeSurfer or "
        "SynthSeg labels",
    )
    deformation: float = _simulation(1.0, "how much heads differ in shape; 0: not at all", low=0, high=MAX_AMOUNT)
    ventricles: float = _simulation(
        1.0, "volume of the lateral ventricles, times what it is", low=1, high=MAX_VENTRICLES
    )
    sulci_mm: float = _simulation(
        0.0,
        "mm that CSF eats into the cortex from either bank of a sulcus",
        low=0,
        high=MAX_SULCI_MM,
    )
    age: float | None = _simulation(
        None,
        "age of every subject in years, which changes contrast and, from 45 on, gives hyperintensities; none: drawn to "
        "fit the head's ventricles",
        low=YOUNGEST,
        high=OLDEST,
    )
    lesions: str | None = _simulation(
        None, "kind of lesions, the same in both fields", choices=tuple(KINDS), needs=(SIMULATED, LESIONED)
    )
    n_lesions: int = _simulation(
        3, "lesions a subject, with --lesions", low=1, high=MAX_COUNT, needs=(SIMULATED, given("lesions"))
    )
    lesions_in: str = _simulation(
        "test",
        "whose heads have them: a split's, or all",
        choices=(*SPLITS, "all"),
        needs=(SIMULATED, given("lesions")),
    )
    faults: str | None = _simulation(
        None,
        f"faults that scans of A may have, separated by commas, or all: {', '.join(FAULTS)}",
    )
    fault_probability: float = _simulation(
        0.3, "probability of each of --faults in a scan of A", low=0, high=1, needs=(SIMULATED, given("faults"))
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

    @property
    def chosen_people(self) -> Roles:
        """The people of every split and, in training, domain.

        Raises: UserError for an unknown one, or one named twice.
        """
        return chosen_people(self.people)

    def preset(self, name: str) -> Preset:
        """The preset of that name, as scanned at this `matrix`, with the protocols and timings asked for.

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
        scanned = replace(chosen, low=protocols[0], high=protocols[1]).on_grid(FOV_MM / self.matrix)
        low = with_acquisition(scanned.low, snr_wm=self.snr_A)
        return replace(scanned, low=low, high=with_acquisition(scanned.high, snr_wm=self.snr_B))


@dataclass(frozen=True)
class PreprocessOptions:
    """`simulate` is the preset of the benchmark, or None for volumes of one's own."""

    simulate: str | None
    output: OutputOptions
    volumes: VolumeOptions
    benchmark: BenchmarkOptions

    def simulated(self) -> Benchmark:
        """The benchmark that --simulate asks for.

        Raises: UserError for unknown faults or people, or a timing that a sequence does not have or cannot take.
        """
        from simulation.benchmark import Benchmark  # late: only simulating needs the simulator

        chosen, output = self.benchmark, self.output
        return Benchmark(
            chosen.preset(self.simulate or DEFAULT_PRESET),
            chosen.n_train,
            chosen.n_val,
            chosen.n_test,
            seed=output.seed,
            bits=output.bits,
            matrix=chosen.matrix,
            nifti=chosen.nifti,
            people=chosen.chosen_people,
            anatomy=chosen.anatomy,
            deformation=chosen.deformation,
            ventricles=chosen.ventricles,
            sulci_mm=chosen.sulci_mm,
            age=chosen.age,
            lesions=chosen.lesions,
            n_lesions=chosen.n_lesions,
            lesions_in=chosen.lesions_in,
            faults=chosen.fault_names,
            fault_probability=chosen.fault_probability,
        )


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
        help=f"write the simulated paired benchmark instead of reading volumes; PRESET is one of {', '.join(PRESETS)} "
        f"[default: {DEFAULT_PRESET}]",
    )
    add_flags(parser, BenchmarkOptions)
    typed = vars(parser.parse_args(argv))
    parts = build(OutputOptions, typed), build(VolumeOptions, typed), build(BenchmarkOptions, typed)
    options = PreprocessOptions(typed["simulate"], *parts)
    _check_together(options)
    refuse_idle(Together(parts, simulate=options.simulate), typed)
    return options


def _check_together(options: PreprocessOptions) -> None:
    volumes = options.volumes
    if not options.output.out:
        raise UserError("--out is missing: name the data folder to write")
    if options.simulate is not None:
        _ = options.benchmark.preset(options.simulate), options.benchmark.fault_names  # either may refuse
        return
    if not volumes.input_A and not volumes.input_B:
        raise UserError("nothing to do: give --input_A and --input_B, or --simulate")
    if volumes.truth_A and not volumes.input_A:
        raise UserError("--truth_A needs --input_A, whose truth it is")
    if not volumes.window_low < volumes.window_high:
        raise UserError(f"--window_low {volumes.window_low} must be below --window_high {volumes.window_high}")
    if volumes.val_fraction + volumes.test_fraction > 1:
        raise UserError(
            f"--val_fraction {volumes.val_fraction} and --test_fraction {volumes.test_fraction} add up to more than 1"
        )
