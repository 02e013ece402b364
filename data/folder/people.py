"""Which person a volume shows, by its name: volumes of one person belong to one split.

A BIDS label names the person: `sub-04_ses-2_T1w` is `sub-04`. Of other names, known endings are cut off: contrast,
plane, field strength, and BIDS entities that tell scans of one person apart (`run-1`, `acq-fast`, `echo-2`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from data.folder.slices import clean_subject

BIDS_SUBJECT = re.compile(r"(sub-[a-z0-9]+)(?=_|$)", re.IGNORECASE)
CONTRASTS = r"(?:T1|T2|PD|T1w|T2w|PDw|T2star|T2starw|FLAIR)(?:[0-9]{2})?"  # M4Raw numbers repetitions: T101, T102
PLANES = r"axi|ax|axial|tra|cor|coronal|sag|sagittal"
FIELDS = r"[0-9]+(?:\.[0-9]+)?m?T"  # 3T, 64mT, 0.3T
ENTITIES = r"(?:ses|run|echo|acq|rec|ce|dir|part)-[a-z0-9]+|(?:run|echo)[0-9]+"
ENDING = re.compile(rf"[-_.](?:{CONTRASTS}|{PLANES}|{FIELDS}|{ENTITIES})$", re.IGNORECASE)
SHOWN = 5  # people named in a sentence; further ones are counted


def person_of(subject: str) -> str:
    """The person that a volume named `subject` shows; the name itself if it has no BIDS label and no known ending."""
    name = clean_subject(subject)
    if bids := BIDS_SUBJECT.match(name):
        return bids[1]
    while (ending := ENDING.search(name)) and ending.start() > 0:
        name = name[: ending.start()]
    return name


def people_of(subjects: Iterable[str]) -> dict[str, str]:
    """The person of every subject; people whose names differ only in case are one."""
    spelling: dict[str, str] = {}
    people = {subject: person_of(subject) for subject in sorted(subjects)}
    return {subject: spelling.setdefault(person.casefold(), person) for subject, person in people.items()}


def joined_people(people: Mapping[str, str]) -> str:
    """A sentence that names the people with several volumes of different names, and these; empty if there are none."""
    volumes: dict[str, list[str]] = {}
    for subject, person in people.items():
        volumes.setdefault(person, []).append(subject)
    joined = [f"{person} ({', '.join(names)})" for person, names in volumes.items() if len(names) > 1]
    if not joined:
        return ""
    more = f" and {len(joined) - SHOWN} more" if len(joined) > SHOWN else ""
    return f"names that belong to one person, who goes to one split: {'; '.join(joined[:SHOWN])}{more}"
