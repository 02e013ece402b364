"""Options that were added since a run was trained, and what was done before there was a choice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

BEFORE: dict[str, Any] = {"lsc_fill": False, "lf_shading": "random"}


def with_younger_options(saved: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """A run's options.json, completed by those of the `known` options that are younger than the run."""
    return {**{name: value for name, value in BEFORE.items() if name in known}, **saved}
