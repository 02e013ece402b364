"""The last step of a test: metrics.csv, the report and metrics.json, and what is printed."""

from __future__ import annotations

from evaluation.evaluate import Evaluation
from evaluation.page.viewer import Listing
from evaluation.paired import MEASURES, PairedTable
from evaluation.record import Record, write_csv, write_json
from evaluation.report import write_report
from evaluation.results import METRICS_NAME
from evaluation.slice_scores import write_slice_table
from evaluation.summary import print_summary
from util.errors import warn


def write_results(
    evaluation: Evaluation, record: Record, table: PairedTable, listing: Listing | None, *, title: str, tested: str
) -> None:
    """Write metrics.csv, slices.csv, the report and last metrics.json, which says that all is there; print the summary.

    Args: title: of the report. tested: names the run and its epoch.
    """
    results = evaluation.results
    write_csv(results / "metrics.csv", table.rows, MEASURES)
    if listing is not None:
        write_slice_table(results / "slices.csv", listing.scores, listing.people)
    page = results / "index.html"
    write_report(
        page,
        record,
        title=title,
        facts=evaluation.facts(tested),
        definitions=evaluation.definitions,
        rows=table.rows,
        listing=listing,
        options=evaluation.model.run,
    )
    write_json(results / METRICS_NAME, record.as_json(evaluation.definitions))
    print_summary(record)
    if left_out := record.tree.get("volumes_left_out"):
        warn(f"volumes not written, as slices of theirs are missing: {len(left_out)}; {METRICS_NAME} names them")
    print(f"report: {page}")
