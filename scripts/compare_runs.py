"""Several runs beside each other on one page: measures with intervals, paired differences, slices, training curves.

python scripts/compare_runs.py RESULTS/A RESULTS/B [...] --out FOLDER [--names A B]

Give results folders of test.py (`RESULTS/NAME/test_latest`, or `RESULTS/NAME` if it holds one test), and run folders
(`OUT/NAME`) of which only the training curves are to be shown; the curves of tested runs are found by themselves. The
first result is the one that the others are compared with. FOLDER can be passed on as it is.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluation.comparison import Comparison, compare, read_result, results_folder, verdict
from evaluation.page.compare_page import FOLDER, write_comparison
from evaluation.record import write_json
from training.log.curve_store import Curves, Points
from training.log.follower import values_of
from training.log.loss_log import LOSS_LOG_NAME, read_rows
from training.log.training_curves import groups
from util.errors import UserError, run_cli
from util.files import PART
from util.runs import OPTIONS_NAME
from util.schema import CommandLine

NUMBERS_NAME = "comparison.json"
OURS = ("index.html", NUMBERS_NAME, FOLDER)  # what a comparison has written


def main(argv: Sequence[str]) -> None:
    """Write the page and print its verdict and its path."""
    parser = CommandLine(prog="compare_runs.py", description=__doc__.partition("\n")[0])
    parser.add_argument("places", nargs="+", type=Path, metavar="RESULTS_OR_RUN", help="results folder, or run folder")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder for the page")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="a name for each place [default: from its path]")
    options = parser.parse_args(argv)
    runs = [place for place in options.places if _is_run(place)]
    folders = [results_folder(place) for place in options.places if not _is_run(place)]
    if len(folders) < 2:
        raise UserError(f"compare_runs.py needs the results of at least two tests, {len(folders)} given")
    names = dict(zip([*folders, *runs], _names(options.places, folders, runs, options.names), strict=True))
    results = [read_result(folder, names[folder]) for folder in folders]
    comparison = compare(results)
    curves = {result.name: _curves(result.run_dir) for result in results}
    curves |= {names[run]: _curves(run) for run in runs}
    try:
        _empty(options.out)
        command = shlex.join(["python", "scripts/compare_runs.py", *argv])
        write_json(options.out / NUMBERS_NAME, _numbers(comparison))  # first: it says whose folder this is
        page = write_comparison(options.out, comparison, curves, command)
    except OSError as error:
        raise UserError(f"--out {options.out}: {error.filename or ''} cannot be written ({error.strerror})") from error
    print(verdict(comparison))
    print(f"comparison: {page}")


def _is_run(place: Path) -> bool:
    return (place / OPTIONS_NAME).is_file()


def _names(
    places: Sequence[Path], folders: Sequence[Path], runs: Sequence[Path], given: Sequence[str] | None
) -> list[str]:
    """A name for each results folder, then for each run folder; all differ. Raises: UserError: --names does not fit."""
    if len(set(folders)) < len(folders):
        raise UserError(f"{next(f for f in folders if folders.count(f) > 1)}: given twice")
    if given is not None:
        if len(given) != len(places) or len(set(given)) < len(given):
            raise UserError(f"--names: needs {len(places)} different names, one for each place, got {' '.join(given)}")
        by_place = dict(zip(places, given, strict=True))
        return [by_place[place] for kind in (False, True) for place in places if _is_run(place) == kind]
    short = [folder.resolve().parent.name for folder in folders] + [run.resolve().name for run in runs]
    often = Counter(short)
    return [name if often[name] == 1 else str(path) for name, path in zip(short, [*folders, *runs], strict=True)]


def _curves(run: Path | None) -> Mapping[str, Mapping[str, Points]]:
    """Stage -> loss -> points of a run's log, which may still be written; empty if there is none."""
    curves = Curves()
    if run is not None and (run / LOSS_LOG_NAME).is_file():
        for row in read_rows(run / LOSS_LOG_NAME)[0]:
            curves.add(values_of(row))
    found = {stage: curves.of(stage) for stage in curves.stages}
    return {stage: {name: of[name] for names in groups(of) for name in names} for stage, of in found.items()}


def _empty(out: Path) -> None:
    """Make the folder, without what an earlier comparison has left.

    Raises: UserError: it holds something else. OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = sorted(path.name for path in out.iterdir())
    foreign = [name for name in found if name.removesuffix(PART) not in OURS or NUMBERS_NAME not in found]
    if foreign:
        raise UserError(f"--out {out}: contains other files ({foreign[0]}), choose another folder")
    for path in (out / name for name in found if name != NUMBERS_NAME):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _numbers(comparison: Comparison) -> dict[str, object]:
    """The content of comparison.json."""
    tables = {"means": comparison.means, "differences": comparison.differences}
    return {
        "verdict": verdict(comparison),
        "results": {result.name: str(result.folder) for result in comparison.results},
        "subjects": comparison.people,
        "left_out": dict(comparison.left_out),
        "same_data": comparison.same_tests,
        **{
            table: {run: {name: asdict(mean) for name, mean in measures.items()} for run, measures in rows.items()}
            for table, rows in tables.items()
        },
    }


if __name__ == "__main__":
    run_cli(main, "compare_runs.py")
