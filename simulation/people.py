"""Which people are simulated in which split: no person is in two of them, nor in both training domains."""

from __future__ import annotations

from collections.abc import Mapping

from util.errors import UserError

Roles = Mapping[str, tuple[str, ...]]

# Fixed for everybody, whatever the seed and the numbers of subjects, so that nobody trains on another's test people.
# The sixteen heads in the order of their lateral ventricles, which follow age: 13, 09, 03, 07, 04, 10, 12, 08, 01, 06,
# 15, 02, 11, 14, 05, 16 (6 to 75 ml, docs/facts.md section 7). The second of every four is for testing, the fourth of
# the first and of the third four for validation; the others, and Colin27, are divided into two equally varied groups.
ROLES: Roles = {
    "trainA": ("colin27", "head_13", "head_12", "head_08", "head_11", "head_05"),
    "trainB": ("head_03", "head_04", "head_01", "head_15", "head_16"),
    "val": ("head_07", "head_02"),
    "test": ("head_09", "head_10", "head_06", "head_14"),
}
PEOPLE = tuple(sorted(person for people in ROLES.values() for person in people))


def chosen_people(text: str | None) -> Roles:
    """The people of every group of `ROLES` that `--people` chooses; None: all, as there.

    `text` lists people, separated by commas. `NAME` keeps the person's group, `GROUP=NAME` moves the person there.

    Raises: UserError for an unknown person or group, or a person named twice.
    """
    if text is None:
        return ROLES
    usual = {person: group for group, people in ROLES.items() for person in people}
    found: dict[str, list[str]] = {group: [] for group in ROLES}
    for entry in text.split(","):
        group, _, person = entry.strip().rpartition("=")
        if person not in usual:
            raise UserError(f"--people {entry.strip()}: unknown person, choose from {', '.join(PEOPLE)}")
        if group and group not in ROLES:
            raise UserError(f"--people {entry.strip()}: unknown split, choose from {', '.join(ROLES)}")
        if any(person in people for people in found.values()):
            raise UserError(f"--people: {person} is named twice, but nobody may be in two splits or in A and B")
        found[group or usual[person]].append(person)
    return {group: tuple(people) for group, people in found.items()}


def require_people(people: Roles, counts: Mapping[str, int]) -> None:
    """Raise UserError if a group of `counts` has subjects but nobody to be their head."""
    for group, count in counts.items():
        if count and not people[group]:
            option = f"--n_{group.rstrip('AB')} {count}"
            raise UserError(
                f"--people: nobody for {group}, and {option} asks for subjects there; "
                f"add {' or '.join(ROLES[group])}, or any other person as {group}=NAME"
            )
