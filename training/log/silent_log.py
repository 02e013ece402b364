"""The log of all processes of a run but the first, which alone writes a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


class SilentLog:
    """The interface of `RunLog` without any effect."""

    def resume(self, stage: str, step: int) -> None: ...

    def stage(self, name: str, n_steps: int, first_step: int = 0, later: Sequence[str] = ()) -> None: ...

    def advance(self, n_images: int) -> None: ...

    def losses_due(self, last: bool = False) -> bool:
        return False

    def losses(self, epoch: int, step: int, losses: Mapping[str, float], lr: float | None = None) -> None: ...

    def validation(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None: ...

    def images_due(self, last: bool = False) -> bool:
        return False

    def images(self, epoch: int, step: int, grid_rows: Mapping[str, Tensor], last: bool = False) -> None: ...

    def report(self) -> None: ...

    def note(self, *lines: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def end(self, lines: Sequence[str]) -> None: ...

    def close(self) -> None: ...
