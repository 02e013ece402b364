"""The cache of a data folder: packs of its slices, built once, trusted as long as the folder's times and counts say so.

A cache is a folder that may be deleted at any time. It is never written into the data folder.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.cache.pack import COLUMNS, Pack, pack_folder
from data.cache.packed_slices import PackedSlices
from data.cache.store import Columns, Store
from data.folder.check import ordered
from data.folder.manifest import DOMAINS, MANIFEST_NAME, SPLITS, forget_manifest
from data.folder.slice_folder import SliceFolder, find_folder
from data.folder.subjects import COLUMNS as SUBJECT_COLUMNS
from data.folder.subjects import FolderSubjects, SubjectTable, shared_subjects
from util.errors import UserError, warn
from util.problems import Problem
from util.reading import structured

CACHE_NAME = ".cache"  # in --checkpoints_dir, unless --cache_dir says otherwise


def cache_folder(given: str | None, checkpoints_dir: str) -> Path:
    """Where --cache_dir puts caches."""
    return Path(checkpoints_dir) / CACHE_NAME if given is None else Path(given)


def check_name(name: str) -> None:
    """Raise UserError unless `name` can be that of a run, which lies beside the cache."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"--name is '{name}', it must be a plain folder name")
    if name == CACHE_NAME:
        raise UserError(f"--name is '{name}', which is where the cache lies; give another one")


class CacheNotWritable(UserError):
    """The cache cannot be written where it should be."""


@dataclass(frozen=True)
class FolderState:
    """A folder as it was listed: a file added, removed or renamed changes its time. changed: nanoseconds."""

    path: str
    changed: str
    entries: int

    @classmethod
    def of(cls, folder: Path | None) -> FolderState | None:
        if folder is None:
            return None
        try:
            changed = folder.stat().st_mtime_ns
            with os.scandir(folder) as entries:
                return cls(os.path.realpath(folder), str(changed), sum(1 for _ in entries))
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error


@dataclass(frozen=True)
class FileState:
    """A file's time in nanoseconds and size."""

    changed: str
    size: int

    @classmethod
    def of(cls, path: Path) -> FileState | None:
        try:
            status = path.lstat()
        except OSError:
            return None
        return cls(str(status.st_mtime_ns), status.st_size)


@dataclass(frozen=True)
class Source:
    """What tables were made from, by what can be looked up at every start. masks: None where they are computed."""

    slices: FolderState | None
    masks: FolderState | None
    manifest: FileState | None


@dataclass(frozen=True)
class Facts:
    """What a header tells besides: the source, a SHA-256 over the content, whether a manifest names the subjects."""

    source: Source
    digest: str
    has_manifest: bool


@dataclass(frozen=True)
class NewTables:
    """Tables that are being made, in the folder `part`; calling it with their columns completes them."""

    store: Store
    part: Path
    source: Source

    def __call__(self, columns: Columns, *, digest: str, has_manifest: bool) -> None:
        facts = Facts(self.source, digest, has_manifest)
        self.store.publish(self.part, columns, dataclasses.asdict(facts))


class SliceCache:
    """Slices of one data folder, out of packs in a folder of `place`, which are built where they are not valid.

    Args:
        place: cache folder; those of several data folders may share it.
        skip_bad: a pack whose folder had bad files will do; without it, such a folder is checked anew at every start,
            for somebody may have mended a file in place.
        revalidate: build all packs anew, once.
    """

    def __init__(self, dataroot: Path, place: Path, *, skip_bad: bool = False, revalidate: bool = False) -> None:
        self.dataroot, self.place, self.skip_bad, self.revalidate = dataroot, place, skip_bad, revalidate
        real = os.path.realpath(dataroot)
        self.root = place / hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
        self._people: dict[tuple[str, str], FolderSubjects] = {}

    def has(self, split: str, domain: str) -> bool:
        """Whether there is a folder of such slices."""
        return find_folder(self.dataroot, split, domain) is not None

    def open(self, split: str, domain: str) -> PackedSlices:
        """The usable slices of a split and domain.

        Raises: UserError as `SliceFolder` does; CacheNotWritable.
        """
        folder = find_folder(self.dataroot, split, domain)
        if folder is None:
            SliceFolder(self.dataroot, split, domain)  # says what is missing
            raise AssertionError("a folder that is not there was opened")
        slices = self._packed(Store(self.root, f"{split}{domain}"), folder, split, domain)
        people = FolderSubjects(folder, split, slices.pack.people, slices.has_manifest)
        self._people[split, domain] = people
        return slices

    def shared_subjects(self) -> list[Problem]:
        """Slices for validation or testing whose subject is in an earlier split too; by names alone, of all folders."""
        every = ((split, domain) for split in SPLITS for domain in DOMAINS if self.has(split, domain))
        found = [people for key in every if (people := self._subjects(*key)) is not None]
        forget_manifest()  # of a million slices it takes 300 MB
        return ordered(shared_subjects(found))

    def _packed(self, store: Store, folder: Path, split: str, domain: str) -> PackedSlices:
        source = self._source(folder, split, domain)

        def valid() -> PackedSlices | None:
            found = _still_valid(store, COLUMNS, source)
            pack = None if found is None else Pack.within(found.columns, found.data, self.dataroot)
            if found is None or pack is None:
                return None
            facts = found.facts
            return PackedSlices(
                store, pack, folder, domain=domain, digest=facts.digest, has_manifest=facts.has_manifest
            )

        before, slices = _current(store), None if self.revalidate else valid()
        if slices is not None and (self.skip_bad or not slices.problems):
            return slices
        with self._building(store, source) as tables:
            if _current(store) != before and (slices := valid()) is not None:
                return slices  # another process has built it in the meantime
            opened = SliceFolder(self.dataroot, split, domain, keep_bytes=0)
            columns, digest = pack_folder(opened, tables.part)
            tables(columns, digest=digest, has_manifest=bool(opened.entries))
        slices = valid()
        if slices is None:
            raise CacheNotWritable(f"--cache_dir {self.place}: what was written to {store.root} cannot be read again")
        return slices

    def _subjects(self, split: str, domain: str) -> FolderSubjects | None:
        """Who is in a folder, opened or not; None if it is empty or cannot be read."""
        if (split, domain) in self._people:
            return self._people[split, domain]
        folder, store = find_folder(self.dataroot, split, domain), Store(self.root, f"{split}{domain}.names")
        if folder is None:
            return None
        try:
            source = Source(FolderState.of(folder), None, FileState.of(self.dataroot / MANIFEST_NAME))
            found = None if self.revalidate else _still_valid(store, SUBJECT_COLUMNS, source)
            table = None if found is None else SubjectTable.within(found.columns)
            if found is not None and table is not None:
                return FolderSubjects(folder, split, table, found.facts.has_manifest)
            people = SliceFolder(self.dataroot, split, domain).people
        except UserError:
            return None
        with self._building(store, source) as tables:
            tables(people.table.columns(), digest="", has_manifest=people.known)
        return people

    def building(self, split: str, domain: str) -> AbstractContextManager[NewTables]:
        """To write the pack of a split and domain by other means than `open`."""
        folder = find_folder(self.dataroot, split, domain)
        return self._building(Store(self.root, f"{split}{domain}"), self._source(folder, split, domain))

    def _source(self, folder: Path | None, split: str, domain: str) -> Source:
        masks = find_folder(self.dataroot, split, domain, "mask")
        return Source(FolderState.of(folder), FolderState.of(masks), FileState.of(self.dataroot / MANIFEST_NAME))

    @contextmanager
    def _building(self, store: Store, source: Source) -> Iterator[NewTables]:
        """New tables made from `source`, while no other process builds the same; what is left over is removed."""
        try:
            store.root.mkdir(parents=True, exist_ok=True)
            with (store.root / f"{store.name}.lock").open("a") as lock:
                alone = _locked(lock.fileno(), store)
                with store.building() as part:
                    yield NewTables(store, part, source)
                if alone:
                    store.tidy()
        except OSError as error:
            path = error.filename or store.root
            reason = f"{path} cannot be written ({error.strerror})"
            default = self.place.name == CACHE_NAME
            given = f"--checkpoints_dir {self.place.parent}" if default else f"--cache_dir {self.place}"
            another = "give another one, or --cache_dir" if default else "give another one"
            raise CacheNotWritable(f"{given}: {reason}; {another}") from error


@dataclass(frozen=True)
class _Found:
    columns: Columns
    data: Any
    facts: Facts


def _still_valid(store: Store, columns: Mapping[str, Any], source: Source) -> _Found | None:
    """Tables made from `source` as it is now."""
    found = store.read(columns)
    if found is None:
        return None
    header, tables, data = found
    try:
        facts = structured(Facts, header.facts)
    except ValueError:
        return None
    return _Found(tables, data, facts) if facts.source == source else None


def _current(store: Store) -> bytes:
    """The header as it is, to see whether another process replaces it."""
    try:
        return (store.root / f"{store.name}.json").read_bytes()
    except OSError:
        return b""


def _locked(descriptor: int, store: Store) -> bool:
    """Wait until no other process builds these tables; False where the file system has no locks."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if not isinstance(error, BlockingIOError | PermissionError):
            return False
    warn(f"{store.root / store.name}: another process is building this part of the cache; waiting for it")
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
