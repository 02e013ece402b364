"""The command line of `test.py`. What was trained, and how slices are prepared, is read from the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.cache.place import cache_folder, check_name
from data.folder.manifest import SPLITS
from models import MODELS
from util.errors import UserError
from util.needs import Together, fact, refuse_idle
from util.reading import read_json
from util.runs import OPTIONS_NAME
from util.schema import CommandLine, add_flags, build, flag

PROTOCOLS = ("pta", "ulf_enc", "mrixfields")  # evaluation.protocols has what they are
SYNTHESIS = fact(
    "synthesises", "a run that synthesises", idle="with a run of a pretext task, which synthesises nothing"
)


@dataclass(frozen=True)
class TestOptions:
    """Which run is tested on what, and where the results go."""

    __test__ = False  # for pytest: no test, whatever the name

    dataroot: str = flag("", "data folder, made by preprocessing_images.py (required)", group="run")
    name: str = flag("experiment", "name of the trained run", group="run")
    checkpoints_dir: str = flag("./checkpoints", "folder of all runs", group="run")
    results_dir: str = flag("./results", "results go to RESULTS/NAME/PHASE_EPOCH", group="run")
    overwrite: bool = flag(False, "replace results of other data or of another run in that folder", group="run")
    epoch: str = flag("latest", "which checkpoint: latest, or a saved epoch's number", group="run")
    phase: str = flag("test", "which split is used", group="run", choices=SPLITS)
    num_test: int = flag(0, "use the first so many slices; 0: all", group="run", low=0)
    cache_dir: str | None = flag(
        None, "folder for training slices ready to be read; none: .cache in --checkpoints_dir", group="run"
    )
    revalidate: bool = flag(False, "check the training slices anew and build their cache again", group="run")
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
    seed: int = flag(0, "seed of bootstrap, draws and corruption", group="measures", low=0, high=2**31 - 1)
    eval_encoder: str | None = flag(
        None,
        "run folder of an SGP trained with another seed, for kd_slice and fd_slice",
        group="measures",
        needs=SYNTHESIS,
    )
    inception_weights: str | None = flag(
        None,
        "the standard FID network (pt_inception-2015-12-05-6726825d.pth), for FID, KID and IS",
        group="measures",
        needs=SYNTHESIS,
    )
    lpips_weights: str | None = flag(
        None,
        "torchvision's AlexNet (alexnet-owt-7be5be79.pth), for LPIPS",
        group="measures",
        needs=SYNTHESIS,
    )
    protocol: str | None = flag(
        None,
        "score once more, as the code of these publications does; ulf_enc and mrixfields need the truth",
        group="measures",
        choices=PROTOCOLS,
        needs=SYNTHESIS,
    )
    baselines: bool = flag(
        True,
        "score identity, histogram and classical beside fake_B",
        group="measures",
        alias=("opponents",),
        needs=SYNTHESIS,
    )
    trust: bool = flag(
        False,
        "map where the synthesis may be wrong, beside every volume and in the report: some 12 more passes a slice",
        group="measures",
        needs=SYNTHESIS,
    )

    @property
    def run_dir(self) -> Path:
        return Path(self.checkpoints_dir) / self.name

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
        return Path(self.results_dir) / self.name / f"{self.phase}_{self.epoch}"


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
    if not options.dataroot:
        raise UserError("--dataroot is missing: the data folder made by preprocessing_images.py")
    check_name(options.name)
    if options.epoch != "latest" and not options.epoch.isdecimal():
        raise UserError(f"--epoch is '{options.epoch}', allowed are latest and the number of a saved epoch")
    refuse_idle(Together([options]), typed)
    return options
