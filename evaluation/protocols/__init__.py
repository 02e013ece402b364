"""Published protocols: a synthesis scored once more, by the definitions that another group's code holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.protocols.base import Protocol
from evaluation.protocols.mrixfields import MRIxFields
from evaluation.protocols.pta import PTA
from evaluation.protocols.ulf_enc import ULFEnC

if TYPE_CHECKING:
    from evaluation.metrics.inception import FIDInception
    from evaluation.metrics.lpips import LPIPS

PROTOCOLS: dict[str, type[Protocol]] = {protocol.name: protocol for protocol in (PTA, ULFEnC, MRIxFields)}


def make_protocol(name: str, inception: FIDInception | None, lpips: LPIPS | None, *, seed: int) -> Protocol:
    """The protocol of that name, with the networks that it may need."""
    if name == PTA.name:
        return PTA(inception, seed=seed)
    return MRIxFields(lpips) if name == MRIxFields.name else ULFEnC()


def definitions_of(protocol: Protocol) -> dict[str, str]:
    """What the section `protocol` of metrics.json is, and what its measures are."""
    about = f"the same images scored by the definitions of {protocol.title}; not comparable with the other sections"
    return {"protocol": about} | {f"protocol.{measure}": text for measure, text in protocol.definitions.items()}
