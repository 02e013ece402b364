"""NIfTI files to a data folder: volumes are read, checked and sliced in parallel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.folder.manifest import DOMAINS, Manifest, VolumeEntry, write_manifest
from data.folder.people import people_of
from preprocessing.checking import Find, check_inputs, print_notes, problem_of, require_domains, warn_of
from preprocessing.dicom import converting
from preprocessing.folder import USUAL_FLAGS, Flags, fresh_folder
from preprocessing.geometry import spacing_mm
from preprocessing.grid import averaged_slices
from preprocessing.inputs import Inputs, Source
from preprocessing.nifti import read_nifti
from preprocessing.parallel import run_jobs
from preprocessing.plausible import doubts_of, refuse_masks
from preprocessing.slicing import Companions, SlicingSettings, find_head, write_volume
from preprocessing.splits import assign_splits, empty_splits
from util.errors import UserError, printable
from util.problems import BAD_FILES_NAME, Problem, write_problems
from util.processes import ALONE, Processes


@dataclass(frozen=True)
class SlicingPlan:
    """Where and how volumes are sliced; with `skip_bad`, volumes that cannot be sliced are left out.

    people: the person of every subject; splits: the split of every person.
    """

    dataroot: Path
    settings: SlicingSettings
    people: dict[str, str]
    splits: dict[str, str]
    skip_bad: bool


@dataclass(frozen=True)
class VolumeJob:
    """One volume to slice."""

    source: Source
    plan: SlicingPlan


def slice_data(
    find: Find,
    dataroot: Path,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    skip_bad: bool,
    workers: int | None,
    processes: Processes,
    flags: Flags = USUAL_FLAGS,
) -> tuple[Manifest, list[Problem]]:
    """Find volumes, check every header before anything is written, and slice them: see `write_dataset`.

    Args: val_fraction, test_fraction, seed: how people are divided, see `split_people`.
    """
    with converting(dataroot, processes) as converter:
        found, settings = processes.alone(partial(find, converter))
        processes.alone(partial(check_inputs, found, dataroot, skip_bad=skip_bad, flag=flags.out))
        fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
        people, splits, notes = split_people(
            found.sources, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed
        )
        processes.alone(partial(print_notes, [*found.notes, *notes]))
        plan = SlicingPlan(dataroot, settings, people, splits, skip_bad)
        return write_dataset(plan, found, workers=workers, recorded=fractions, processes=processes, flags=flags)


def split_people(
    sources: Sequence[Source], *, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The person of every subject, the split of every person, and sentences on splits that stay empty."""
    people = people_of({source.subject for source in sources})
    owners = {domain: [people[s.subject] for s in sources if s.domain == domain] for domain in DOMAINS}
    people_A, people_B = (set(owners[domain]) for domain in DOMAINS)
    splits = assign_splits(people_A, people_B, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    return people, splits, empty_splits(owners, splits, {"val": val_fraction, "test": test_fraction})


def write_dataset(
    plan: SlicingPlan,
    found: Inputs,
    *,
    workers: int | None,
    recorded: Mapping[str, object],
    processes: Processes = ALONE,
    flags: Flags = USUAL_FLAGS,
) -> tuple[Manifest, list[Problem]]:
    """Slice every usable volume and write the manifest; if one fails, all output is removed.

    Args: recorded: options to record in the manifest besides the plan's; no paths.
    Returns: the manifest, and the problems of files left out, which its settings and `BAD_FILES_NAME` list too.
    Raises: UserError naming the file, see `read_nifti` and `write_volume`; or a domain without usable volumes.
    """
    with fresh_folder(plan.dataroot, processes, flags.out):
        jobs = [VolumeJob(source, plan) for source in found.sources]
        title, instead = "slicing volumes", flags.one_worker
        results = run_jobs(slice_volume, jobs, workers=workers, title=title, processes=processes, instead=instead)
        return processes.alone(partial(_finish, plan, found, results, recorded))


def _finish(
    plan: SlicingPlan, found: Inputs, results: Sequence[Sliced | Problem], recorded: Mapping[str, object]
) -> tuple[Manifest, list[Problem]]:
    problems = [*found.problems, *(result for result in results if isinstance(result, Problem))]
    sliced = [result for result in results if isinstance(result, Sliced)]
    volumes = [one.entry for one in sliced]
    require_domains(found, volumes, problems)
    if problems:
        write_problems(plan.dataroot / BAD_FILES_NAME, problems)
    manifest = Manifest("nifti", volumes, {**recorded, **_settings(plan, problems)})
    write_manifest(plan.dataroot, manifest)
    warn_of([doubt for one in sliced for doubt in one.doubtful])
    return manifest, problems


def _settings(plan: SlicingPlan, problems: Sequence[Problem]) -> dict[str, object]:
    layout = plan.settings.layout
    settings: dict[str, object] = {
        "bits": plan.settings.bits,
        "slice_axis": "RAS"[layout.slice_axis],
        "pixel_mm": layout.grid.pixel_mm,
        "fov_mm": layout.grid.fov_mm,
        "thickness_mm": layout.thickness_mm,
        "window_percentiles": list(plan.settings.percentiles),
    }
    if problems:
        settings["skipped"] = [
            {"source": "DICOM", "reason": bad.anonymous}
            if bad.anonymous
            else {"source": printable(bad.path.name), "reason": bad.reason}
            for bad in problems
        ]
    return settings


@dataclass(frozen=True)
class Sliced:
    """The manifest entry of a volume, and what is doubtful about it."""

    entry: VolumeEntry
    doubtful: list[Problem]


def slice_volume(job: VolumeJob) -> Sliced | Problem:
    """Read one volume and its truth, if any, and write their slices."""
    source, plan, person = job.source, job.plan, job.plan.people[job.source.subject]
    layout = plan.settings.layout
    try:
        volume, affine, geometry = read_nifti(source.path)
        refuse_masks(volume, str(source.path))
        truth = read_nifti(source.truth)[0] if source.truth else None
        if truth is not None:
            refuse_masks(truth, str(source.truth))
        apart = spacing_mm(affine)[layout.slice_axis]
        if thickness := layout.averaged_over(apart):
            volume = averaged_slices(volume, layout.slice_axis, apart, thickness)
            truth = None if truth is None else averaged_slices(truth, layout.slice_axis, apart, thickness)
        head = find_head(volume, layout.slice_axis, source.path.name, plan.settings.percentiles)
        entry = write_volume(
            plan.dataroot,
            split=plan.splits[person],
            domain=source.domain,
            subject=source.subject,
            person=person,
            source=printable(source.path.name),
            volume=volume,
            affine_ras=affine,
            geometry=geometry,
            slice_axis=layout.slice_axis,
            grid=layout.grid,
            thickness_mm=thickness,
            bits=plan.settings.bits,
            percentiles=plan.settings.percentiles,
            companions=Companions(truth=truth),
            head=head,
        )
        return Sliced(entry, [source.problem(doubt) for doubt in doubts_of(volume, head, layout, affine)])
    except UserError as error:
        problem = problem_of(source, error)
        if plan.skip_bad:
            return problem
        raise UserError(str(problem)) from error
