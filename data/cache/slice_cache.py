"""The cache of a data folder: packs of its slices, built once and valid until a file or its folder changes.

The cache is a separate folder, never within the data folder, and may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.cache.pack import COLUMNS, Pack, pack_folder
from data.cache.packed_slices import PackedSlices
from data.cache.place import CACHE_NAME
from data.cache.store import Columns, Store
from data.cache.subject_columns import SUBJECT_COLUMNS, subject_columns, subjects_from
from data.folder.check import sort_problems
from data.folder.manifest import DOMAINS, MANIFEST_NAME, SPLITS, forget_manifest
from data.folder.slice_folder import SliceFolder, find_folder
from data.folder.slices import SLICE_SUFFIXES
from data.folder.subjects import FolderSubjects, shared_subjects
from util.errors import UserError, warn
from util.problems import Problem
from util.reading import structured


class CacheNotWritable(UserError):
    """The cache folder is not writable."""


@dataclass(frozen=True)
class FolderState:
    """A folder's modification time (ns), which changes with the names of its files, and its number of entries.

    files: SHA-256 over the sorted modification times (ns) and sizes of slices or masks in it, which change when one is
    rewritten in place; empty where only names matter.
    """

    path: str
    changed: str
    entries: int
    files: str = ""

    @classmethod
    def of(cls, folder: Path | None, *, names_only: bool = False) -> FolderState | None:
        if folder is None:
            return None
        try:
            changed = str(folder.stat().st_mtime_ns)
            with os.scandir(folder) as entries:
                if names_only:
                    return cls(os.path.realpath(folder), changed, sum(1 for _ in entries))
                count, files = _digest(entries)
                return cls(os.path.realpath(folder), changed, count, files)
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error


def _digest(entries: Iterator[os.DirEntry[str]]) -> tuple[int, str]:
    """The number of entries, and `FolderState.files`. Nothing is opened: a million files take some seconds."""
    count, states = 0, array("q")
    for entry in entries:
        count += 1
        if entry.name.lower().endswith(SLICE_SUFFIXES):
            try:
                status = entry.stat()
            except OSError:
                continue  # a link to nothing, which is listed as a bad file
            states.append(status.st_mtime_ns)
            states.append(status.st_size)
    times, sizes = np.array(states, dtype=np.int64).reshape(-1, 2).T
    order = np.lexsort((sizes, times))  # entries come in any order
    return count, hashlib.sha256(times[order].tobytes() + sizes[order].tobytes()).hexdigest()


@dataclass(frozen=True)
class FileState:
    """A file's modification time (ns) and size (bytes)."""

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
    """The state of the files that tables were built from, cheap to look up at every start. masks: None if computed."""

    slices: FolderState | None
    masks: FolderState | None
    manifest: FileState | None

    def changed_since(self, earlier: Source) -> list[str]:
        """Which of these are not as they were."""
        return [name for name, state in vars(self).items() if state != getattr(earlier, name)]


@dataclass(frozen=True)
class Facts:
    """`Header.facts`: the source, a SHA-256 over the content, whether the subjects come from a manifest."""

    source: Source
    digest: str
    has_manifest: bool


@dataclass(frozen=True)
class NewTables:
    """Tables being built in the folder `part`; a call with their columns publishes them."""

    store: Store
    part: Path
    source: Source

    def __call__(self, columns: Columns, *, digest: str, has_manifest: bool) -> None:
        facts = Facts(self.source, digest, has_manifest)
        self.store.publish(self.part, columns, dataclasses.asdict(facts))


class SliceCache:
    """Slices of one data folder from packs in a folder of `place`; packs that are missing or invalid are built.

    Args:
        place: cache folder, may be shared by several data folders.
        skip_bad: accept packs of folders with bad files; otherwise these folders are checked again at every start, as
            a file may have been repaired in place.
        revalidate: rebuild all packs once.
    """

    def __init__(self, dataroot: Path, place: Path, *, skip_bad: bool = False, revalidate: bool = False) -> None:
        self.dataroot, self.place, self.skip_bad, self.revalidate = dataroot, place, skip_bad, revalidate
        real = os.path.realpath(dataroot)
        self.root = place / hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
        self._opened: dict[tuple[str, str], FolderSubjects] = {}

    def has(self, split: str, domain: str, kind: str = "") -> bool:
        """Whether the slice folder exists."""
        return find_folder(self.dataroot, split, domain, kind) is not None

    def open(self, split: str, domain: str, kind: str = "") -> PackedSlices:
        """The usable slices of a split and domain; `kind` as for `SliceFolder`.

        Raises: UserError as `SliceFolder` does; CacheNotWritable.
        """
        folder = find_folder(self.dataroot, split, domain, kind)
        if folder is None:
            SliceFolder(self.dataroot, split, domain, kind)  # raises UserError
            raise AssertionError("opened a missing folder")
        slices = self._packed(folder, split, domain, kind)
        if not kind:
            self._opened[split, domain] = FolderSubjects(folder, split, slices.pack.subjects, slices.has_manifest)
        return slices

    def shared_subjects(self) -> list[Problem]:
        """Slices of validation and test whose subject is in an earlier split too. Only names are read."""
        every = ((split, domain) for split in SPLITS for domain in DOMAINS if self.has(split, domain))
        found = [subjects for key in every if (subjects := self._subjects(*key)) is not None]
        forget_manifest()  # 300 MB for a million slices
        return sort_problems(shared_subjects(found))

    def _packed(self, folder: Path, split: str, domain: str, kind: str) -> PackedSlices:
        name = f"{split}{domain}_{kind}" if kind else f"{split}{domain}"
        store, source = Store(self.root, name), self._source(folder, split, domain, kind)

        def valid() -> PackedSlices | None:
            found = _still_valid(store, COLUMNS, source)
            pack = None if found is None else Pack.from_columns(found.columns, found.data, self.dataroot)
            if found is None or pack is None:
                return None
            facts = found.facts
            return PackedSlices(
                store, pack, folder, domain=domain, digest=facts.digest, has_manifest=facts.has_manifest
            )

        before, slices = _current(store), None if self.revalidate else valid()
        if slices is not None and (self.skip_bad or not slices.problems):
            return slices
        if slices is None and not self.revalidate:
            _tell_change(store, folder, source)
        with self._building(store, source) as tables:
            if _current(store) != before and (slices := valid()) is not None:
                return slices  # another process has built it in the meantime
            opened = SliceFolder(self.dataroot, split, domain, kind, keep_bytes=0)
            columns, digest = pack_folder(opened, tables.part)
            tables(columns, digest=digest, has_manifest=bool(opened.entries))
        slices = valid()
        if slices is None:
            raise CacheNotWritable(f"--cache_dir {self.place}: the tables written to {store.root} cannot be read back")
        return slices

    def _subjects(self, split: str, domain: str) -> FolderSubjects | None:
        """The subjects of a folder, opened or not; None if it is empty or cannot be read."""
        if (split, domain) in self._opened:
            return self._opened[split, domain]
        folder, store = find_folder(self.dataroot, split, domain), Store(self.root, f"{split}{domain}.names")
        if folder is None:
            return None
        try:
            source = Source(FolderState.of(folder, names_only=True), None, FileState.of(self.dataroot / MANIFEST_NAME))
            found = None if self.revalidate else _still_valid(store, SUBJECT_COLUMNS, source)
            table = None if found is None else subjects_from(found.columns)
            if found is not None and table is not None:
                return FolderSubjects(folder, split, table, found.facts.has_manifest)
            subjects = SliceFolder(self.dataroot, split, domain).folder_subjects
        except UserError:
            return None
        with self._building(store, source) as tables:
            tables(subject_columns(subjects.table), digest="", has_manifest=subjects.in_manifest)
        return subjects

    def building(self, split: str, domain: str) -> AbstractContextManager[NewTables]:
        """Context to write the pack of a split and domain without decoding its files."""
        folder = find_folder(self.dataroot, split, domain)
        return self._building(Store(self.root, f"{split}{domain}"), self._source(folder, split, domain))

    def _source(self, folder: Path | None, split: str, domain: str, kind: str = "") -> Source:
        masks = find_folder(self.dataroot, split, domain, f"{kind}_mask" if kind else "mask")
        return Source(FolderState.of(folder), FolderState.of(masks), FileState.of(self.dataroot / MANIFEST_NAME))

    @contextmanager
    def _building(self, store: Store, source: Source) -> Iterator[NewTables]:
        """New tables built from `source`, under a lock; remains of interrupted builds are removed."""
        try:
            store.root.mkdir(parents=True, exist_ok=True)
            with (store.root / f"{store.name}.lock").open("a") as lock:
                locked = _locked(lock.fileno(), store)
                with store.building() as part:
                    yield NewTables(store, part, source)
                if locked:
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


def _read(store: Store, columns: Mapping[str, Any]) -> _Found | None:
    """The tables of `store`, whatever they were built from; None if they are absent or damaged."""
    found = store.read(columns)
    if found is None:
        return None
    header, tables, data = found
    try:
        return _Found(tables, data, structured(Facts, header.facts))
    except ValueError:
        return None


def _still_valid(store: Store, columns: Mapping[str, Any], source: Source) -> _Found | None:
    """The tables of `store` if they were built from `source`, else None."""
    found = _read(store, columns)
    return found if found is not None and found.facts.source == source else None


def _tell_change(store: Store, folder: Path, source: Source) -> None:
    """Say in one line why tables that are whole are built anew."""
    found = _read(store, COLUMNS)
    if found is not None:
        changed = " and ".join(source.changed_since(found.facts.source))
        warn(f"{folder}: {changed} changed since the cache was built; this part of it is built anew")


def _current(store: Store) -> bytes:
    """The current header, which shows whether another process has replaced the tables."""
    try:
        return (store.root / f"{store.name}.json").read_bytes()
    except OSError:
        return b""


def _locked(descriptor: int, store: Store) -> bool:
    """Wait for the lock on these tables; False if the file system has no locks."""
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
