"""Classes and functions that are imported when they are needed: torch takes seconds, and `--help` needs none of it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Lazy(Generic[T]):
    """A class or function by its dotted path; it is imported when it is first called.

        "sgp": Lazy("models.sgp_model.SGPModel", SGPOptions)

    options: a class's `Options`, declared in a module without torch, for the command line. None: they are looked up in
        the class itself, which is imported for that.
    """

    path: str
    options: Any = None

    @property
    def Options(self) -> Any:
        """The class of its options."""
        return self.options or self.load().Options  # type: ignore[attr-defined]

    def load(self) -> type[T]:
        """The class or function itself."""
        module, _, name = self.path.rpartition(".")
        return getattr(import_module(module), name)

    def __call__(self, *arguments: Any, **named: Any) -> T:
        return self.load()(*arguments, **named)
