"""The command line of `test.py`. What was trained, and how slices are prepared, is read from the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.cache.place import cache_folder, check_name
from data.folder.manifest import SPLITS
from models import MODELS
from util.errors import UserError
from util.needs import Need, Together, fact, refuse_idle
from util.reading import read_json
from util.runs import OPTIONS_NAME, PRETRAINED, require_pretrained
from util.schema import CommandLine, add_flags, build, flag

PROTOCOLS = ("pta", "ulf_enc", "mrixfields")  # evaluation.protocols has what they are
SYNTHESIS = fact(
    "synthesises", "a run that synthesises", idle="with a run of a pretext task, which synthesises nothing"
)

OWN_RUN = Need(
    "a run of one's own", lambda o: o.pretrained is None, idle="beside --pretrained, which names a shipped model"
)
SLICES, VOLUMES = "slices", "volume"
OF_SLICES = Need("a data folder of slices", lambda o: o.dataset_mode == SLICES, idle=f"beside --dataset_mode {VOLUMES}")
OF_VOLUMES = Need(f"--dataset_mode {VOLUMES}", lambda o: o.dataset_mode == VOLUMES)
_of_slices = partial(flag, needs=OF_SLICES)


@dataclass(frozen=True)
class TestOptions:
    """Which run is tested on what, and where the results go."""

    __test__ = False  # for pytest: no test, whatever the name

    dataroot: str = flag(
        "", "data folder, made by preprocessing_images.py; or scans, see --dataset_mode (required)", group="run"
    )
    dataset_mode: str = flag(
        SLICES,
        "what --dataroot is: a data folder of slices; or a volume: a NIfTI file, a folder of such, DICOM, or a BIDS "
        "folder, which is cut like the training's and comes back as volumes/SCAN_synth.nii.gz",
        group="run",
        choices=(SLICES, VOLUMES),
    )
    contrast: str | None = flag(
        None,
        "take only volumes whose names end in this, as T2w in sub-01_T2w.nii.gz or of a DICOM series",
        group="run",
        needs=OF_VOLUMES,
    )
    name: str = flag("experiment", "name of the trained run", group="run", needs=OWN_RUN)
    pretrained: str | None = flag(
        None, "name of a model that comes with the repository, in place of a run (docs/pretrained.md)", group="run"
    )
    checkpoints_dir: str = flag("./checkpoints", "folder of all runs", group="run")
    results_dir: str = flag("./results", "results go to RESULTS/NAME/PHASE_EPOCH", group="run")
    overwrite: bool = flag(False, "replace results of other data or of another run in that folder", group="run")
    epoch: str = flag("latest", "which checkpoint: latest, or a saved epoch's number", group="run", needs=OWN_RUN)
    phase: str = _of_slices("test", "which split is used", group="run", choices=SPLITS)
    num_test: int = _of_slices(0, "use the first so many slices; 0: all", group="run", low=0)
    cache_dir: str | None = _of_slices(
        None, "folder for training slices ready to be read; none: .cache in --checkpoints_dir", group="run"
    )
    revalidate: bool = _of_slices(False, "check the training slices anew and build their cache again", group="run")
    check_data: bool = flag(False, "list all bad files of --dataroot, and do nothing else", group="run")
    skip_bad: bool = flag(False, "leave bad files out instead of refusing them", group="run")
    batch_size: int = flag(16, "slices computed at once; changes no result", group="computing", low=1)
    average_mirrored: bool = flag(
        False,
        "average every synthesis with that of the slice mirrored left to right: twice the time",
        group="computing",
        needs=SYNTHESIS,
    )
    gpu_ids: str = flag("auto", "auto: CUDA if there is any; -1: the CPU; 0, 1, …: that GPU", group="computing")
    cpu_threads: int | None = flag(
        None,
        "threads that compute on the CPU; none: OMP_NUM_THREADS, else the usable processors",
        group="computing",
        low=1,
    )
    seed: int = flag(0, "seed of draws, corruption and the noise of --trust", group="measures", low=0, high=2**31 - 1)
    eval_encoder: str | None = flag(
        None,
        "run folder of an SGP trained with another seed, for kd_slice and fd_slice",
        group="measures",
        needs=(SYNTHESIS, OF_SLICES),
    )
    inception_weights: str | None = flag(
        None,
        "the standard FID network (pt_inception-2015-12-05-6726825d.pth), for FID, KID and IS",
        group="measures",
        needs=(SYNTHESIS, OF_SLICES),
    )
    lpips_weights: str | None = flag(
        None,
        "torchvision's AlexNet (alexnet-owt-7be5be79.pth), for LPIPS",
        group="measures",
        needs=(SYNTHESIS, OF_SLICES),
    )
    protocol: str | None = flag(
        None,
        "score once more, as the code of these publications does; ulf_enc and mrixfields need the truth",
        group="measures",
        choices=PROTOCOLS,
        needs=(SYNTHESIS, OF_SLICES),
    )
    baselines: bool = flag(
        True,
        "score identity, histogram and classical beside fake_B",
        group="measures",
        alias=("opponents",),
        needs=(SYNTHESIS, OF_SLICES),
    )
    trust: bool = flag(
        False,
        "map where the synthesis may be wrong, beside every volume and in the report: some 12 more passes a slice",
        group="measures",
        needs=SYNTHESIS,
    )

    @property
    def of_volumes(self) -> bool:
        """Whether scans are given, not slices."""
        return self.dataset_mode == VOLUMES

    @property
    def slices(self) -> Path:
        """Where slices of scans go, beside the results."""
        return Path(self.results_dir) / self.title / "slices"

    @property
    def title(self) -> str:
        """What the results are called: the name of the run, or of the shipped model."""
        return self.pretrained or self.name

    @property
    def run_dir(self) -> Path:
        """The folder of the run, or of the shipped model."""
        return Path(self.checkpoints_dir) / self.name if self.pretrained is None else PRETRAINED / self.pretrained

    @property
    def synthesises(self) -> bool:
        """Whether the run's model makes images, as its options.json says; where that cannot be read, others tell so."""
        try:
            model = read_json(self.run_dir / OPTIONS_NAME).get("model")
        except (UserError, OSError, AttributeError):
            return True
        return next((known.Options.can_synthesise for name, known in MODELS.items() if name == model), True)

    @property
    def cache(self) -> Path:
        return cache_folder(self.cache_dir, self.checkpoints_dir)

    @property
    def results(self) -> Path:
        return Path(self.results_dir) / self.title / f"{self.phase}_{self.epoch}"


def parse(argv: Sequence[str]) -> TestOptions:
    """Parse the command line of test.py.

    Raises:
        SystemExit: status 2 with one sentence for unknown, abbreviated or malformed options; 0 after `--help`.
        UserError: a value out of range or a missing one.
    """
    parser = CommandLine(prog="test.py", description="Test a trained run: images, volumes, measures and a report.")
    add_flags(parser, TestOptions)
    typed = vars(parser.parse_args(argv))
    options = build(TestOptions, typed)
    if options.of_volumes and not options.synthesises:
        raise UserError(
            f"--dataset_mode {VOLUMES}: {options.run_dir} is a run of a pretext task, which synthesises nothing"
        )
    if not options.dataroot:
        raise UserError("--dataroot is missing: the data folder made by preprocessing_images.py")
    if options.pretrained is None:
        check_name(options.name)
    else:
        check_name(options.pretrained, "--pretrained")
        require_pretrained(options.run_dir)
    if options.epoch != "latest" and not options.epoch.isdecimal():
        raise UserError(f"--epoch is '{options.epoch}', allowed are latest and the number of a saved epoch")
    refuse_idle(Together([options]), typed)
    return options
