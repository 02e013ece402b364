"""JSON values turned into the dataclasses they should be; what does not fit is named by its place in the file."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

MAX_INTEGER = 2**53  # beyond it a JSON number need not come back as it was


def structured(kind: type[T], value: Any, place: str) -> T:
    """`value`, as `json` gives it, as `kind`: a dataclass, list[...], dict, str, bool, int, finite float or `X | None`.

    Args: place: where the value stands, for messages: `volumes[3].slices[7].p`; empty for the whole file.
    Raises: ValueError naming the place, what is there, and what is needed.
    """
    return typing.cast(T, _fitted(kind, value, place))


def _fitted(kind: Any, value: Any, place: str) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return None if value is None else _fitted(typing.get_args(kind)[0], value, place)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _object(kind, value, place)
    if typing.get_origin(kind) is list and isinstance(value, list):
        (of,) = typing.get_args(kind)
        made = of if dataclasses.is_dataclass(of) else None  # perhaps by the reader already, by the million
        return [item if type(item) is made else _fitted(of, item, f"{place}[{i}]") for i, item in enumerate(value)]
    if typing.get_origin(kind) is dict and isinstance(value, dict):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if kind is int and isinstance(value, int) and abs(value) <= MAX_INTEGER:
            return value
        if kind is float and (isinstance(value, float) or abs(value) <= MAX_INTEGER) and math.isfinite(value):
            return float(value)
    raise ValueError(f"{place or 'the file'} is {_shown(value)}, need {_need(kind)}")


def _object(kind: type, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{place or 'the file'} is {_shown(value)}, need {_need(kind)}")
    dot, fields = "." if place else "", _fields(kind)
    for name in value:
        if name not in fields:
            raise ValueError(f"{place}{dot}{name[:80]}: unknown, allowed are {', '.join(fields)}")
    for name, (_, required) in fields.items():
        if required and name not in value:
            raise ValueError(f"{place}{dot}{name} is missing")
    return kind(**{name: _fitted(fields[name][0], item, f"{place}{dot}{name}") for name, item in value.items()})


@lru_cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Type of every field of a dataclass, and whether it must be given."""
    annotations, none = typing.get_type_hints(kind), dataclasses.MISSING
    return {
        field.name: (annotations[field.name], field.default is none and field.default_factory is none)
        for field in dataclasses.fields(kind)
    }


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, str):
        return f"'{value[:80]}'"
    if dataclasses.is_dataclass(value):  # made by the reader, of an object that is elsewhere than it should be
        return "another object"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "beyond 2^53"
    return json.dumps(value)


def _need(kind: Any) -> str:
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a finite number"}
    if kind in names:
        return names[kind]
    return "a list" if typing.get_origin(kind) is list else "an object"
