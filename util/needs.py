"""What an option needs beside it to do anything: an option that does nothing is refused, not accepted in silence.

    lf_band: float = flag(1.0, "…", needs=positive("lf_noise"))
    ngf: int = flag(64, "…", needs=chosen(netG=("resnet_9blocks", "unet_128")))

`refuse_idle` looks at all options of a program together, after parsing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from util.errors import UserError


@dataclass(frozen=True)
class Need:
    """A condition on the other options.

    words: what is needed, as the documentation tells it. holds: whether all options together, by attribute, have it.
    idle: the end of the sentence "--FLAG does nothing …"; without it the sentence ends in "without WORDS".
    """

    words: str
    holds: Callable[[Any], bool]
    idle: str = ""

    @property
    def lacking(self) -> str:
        """How the refusal ends."""
        return self.idle or f"without {self.words}"


def positive(name: str) -> Need:
    """The number `--NAME` is above 0, or the word `auto`, whose number is not known yet."""
    return Need(f"--{name} above 0", lambda o: getattr(o, name) == "auto" or getattr(o, name) > 0)


def given(name: str) -> Need:
    """`--NAME` is switched on, or there is a value."""
    return Need(f"--{name}", lambda o: bool(getattr(o, name)))


def chosen(**choice: Collection[Any]) -> Need:
    """One option has one of some values: `chosen(netG=("hybrid",))`."""
    ((name, values),) = choice.items()
    return Need(f"--{name} {' or '.join(map(str, values))}", lambda o: getattr(o, name) in values)


def fact(name: str, words: str, *, otherwise: bool = False, idle: str = "") -> Need:
    """A property of the options is true; `otherwise` is what holds for options that lack the property."""
    return Need(words, lambda o: bool(getattr(o, name, otherwise)), idle)


class Together:
    """Several dataclasses of options as one: every option, and every property, by attribute."""

    def __init__(self, parts: Iterable[Any], **more: Any) -> None:
        self.__dict__.update(more)
        self._parts = tuple(parts)

    def __getattr__(self, name: str) -> Any:
        for part in self._parts:
            if hasattr(type(part), name):  # not of the part: an error inside a property is no missing one
                return getattr(part, name)
        raise AttributeError(name)

    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """The declarations of all options."""
        return {field.name: field for part in self._parts for field in dataclasses.fields(part)}


def idle_options(options: Together) -> dict[str, Need]:
    """The options that do nothing beside the others, and what the first of them lacks."""
    idle = {}
    for name, field in options.fields().items():
        lacking = next((need for need in field.metadata.get("needs", ()) if not need.holds(options)), None)
        if lacking is not None:
            idle[name] = lacking
    return idle


def refuse_idle(options: Together, typed: Collection[str]) -> None:
    """Raise UserError for the first of `typed` that does nothing; one that repeats its default is let through."""
    fields = options.fields()
    for name, need in idle_options(options).items():
        value = getattr(options, name)
        if name in typed and value != fields[name].default:
            raise UserError(f"{_spelled(name, value)} does nothing {need.lacking}")


def _spelled(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {value}"
