"""One sentence on whether the synthesis is worth something: does `fake_B` beat every baseline against the truth?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.people import PERSON_MEASURES
from evaluation.record import Record

VERDICT_MEASURES = PERSON_MEASURES
DEFINITIONS = {
    "verdict": f"whether fake_B has a higher mean than every baseline in {', '.join(VERDICT_MEASURES)}, and for how "
    "many people it is better than the baseline with the highest mean"
}


def put_verdict(record: Record) -> None:
    """Write the leaf `verdict` from the section `paired`; null, with the reason, if there is nothing to compare."""
    if record.tree["paired"] is None:
        record.null("verdict", why=record.reason("paired") or "")
        return
    means = {row: _means(scores) for row, scores in record.tree["paired"].items()}
    ours = means.pop("fake_B", {})
    scored = {row: theirs for row, theirs in means.items() if ours.keys() & theirs.keys()}
    if not scored:
        why = next((why for row in means if (why := record.reason("paired", row, "psnr"))), "fake_B has no score")
        record.null("verdict", why=f"no baseline to compare with: {why}")
        return
    compared = [measure for measure in VERDICT_MEASURES if any(measure in theirs for theirs in scored.values())]
    lost = {row: _lost(ours, theirs) for row, theirs in scored.items()}
    sentence = _sentence(compared, {row: measures for row, measures in lost.items() if measures})
    record.put("verdict", value=sentence + _for_whom(record, scored))


def _means(scores: Mapping[str, Mapping[str, float] | None]) -> dict[str, float]:
    """The row's means that could be had."""
    found = {measure: (scores[measure] or {}).get("mean") for measure in VERDICT_MEASURES}
    return {measure: mean for measure, mean in found.items() if mean is not None}


def _lost(ours: Mapping[str, float], theirs: Mapping[str, float]) -> list[str]:
    """The measures in which a baseline is as good or better, each with both means."""
    worse = [measure for measure in ours.keys() & theirs.keys() if not ours[measure] > theirs[measure]]
    return [f"{name} ({ours[name]:.4g} against {theirs[name]:.4g})" for name in VERDICT_MEASURES if name in worse]


def _sentence(compared: Sequence[str], lost: Mapping[str, Sequence[str]]) -> str:
    left_out = [measure for measure in VERDICT_MEASURES if measure not in compared]
    without = f"; {listed(left_out)} could not be measured" if left_out else ""
    if not lost:
        return f"fake_B beats every baseline in {listed(compared)}{without}."
    losses = "; ".join(f"to {row} in {listed(measures)}" for row, measures in lost.items())
    return f"fake_B does not beat every baseline in {listed(compared)}: it loses {losses}{without}."


def _for_whom(record: Record, scored: Mapping[str, Mapping[str, float]]) -> str:
    """For how many people fake_B is better than the baseline with the highest mean, measure by measure."""
    apart = record.tree.get("by_person")
    if apart is None:
        return ""
    counts, names = {}, {}
    for measure in VERDICT_MEASURES:
        means = {row: theirs[measure] for row, theirs in scored.items() if measure in theirs}
        strongest = max(means, key=lambda row: means[row], default="")
        if (n := apart["n_better"].get(strongest, {}).get(measure)) is not None:
            counts[measure], names[measure] = n, strongest
    if not counts:
        return ""
    one = len(set(names.values())) == 1
    found = [f"{n} in {measure}" + (f" ({names[measure]})" if not one else "") for measure, n in counts.items()]
    strongest = f"{next(iter(names.values()))}, the strongest baseline," if one else "the strongest baseline"
    people = "1 person" if apart["n_people"] == 1 else f"{apart['n_people']} people"
    return f" Of {people} it is better than {strongest} for {listed(found)}."


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
