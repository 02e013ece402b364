"""Test a trained run: `python test.py --dataroot DATA --name test --checkpoints_dir OUT --results_dir RESULTS`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from data.check import check_data, report, told
from evaluation.encoder import grid_of, load_encoder
from evaluation.evaluate import DEFINITIONS, Evaluation
from evaluation.folders import TestData, open_test_data
from evaluation.paired import MEASURES
from evaluation.predict import Device
from evaluation.record import write_csv, write_json
from evaluation.report import write_report
from evaluation.results import fresh_folder
from evaluation.summary import print_summary
from models import BaseModel, load_trained
from options.test_options import TestOptions, parse
from util.device import choose_device
from util.errors import run_cli, warn
from util.metrics.inception import FIDInception, find_weights

__test__ = False  # for pytest: a programme, whatever the name


def make_evaluation(options: TestOptions) -> Evaluation:
    """Everything of a test, opened and checked before any work."""
    device = choose_device(options.gpu_ids)
    torch.manual_seed(options.seed)
    model = load_trained(options.run_dir, options.epoch, device)
    data = open_test_data(
        Path(options.dataroot),
        options.phase,
        table_in=options.results,
        direction=model.run["direction"],
        limit=options.num_test,
        skip_bad=options.skip_bad,
    )
    given = options.eval_encoder
    weights = find_weights(None if options.inception_weights is None else Path(options.inception_weights))
    return Evaluation(
        model=model,
        grid=grid_of(model),
        data=data,
        on=Device(device, options.batch_size),
        encoder=None if given is None else load_encoder(Path(given), model, device),
        results=options.results,
        seed=options.seed,
        with_opponents=options.opponents,
        average_mirrored=options.average_mirrored,
        inception=None if weights is None else FIDInception.from_file(weights).to(device),
    )


def facts(options: TestOptions, model: BaseModel, data: TestData) -> dict[str, str]:
    """What was tested on what, for the head of the report."""
    run = model.run
    network = f", {run['netG']}" if "netG" in run else ""
    left_out = f"; {len(data.skipped)} bad files were left out, see metrics.json" if data.skipped else ""
    return {
        "run": f"{options.run_dir}, epoch {options.epoch}" + ", mirror average" * options.average_mirrored,
        "model": f"{run['model']}{network}, seed {run['seed']}",
        "data": f"{data.source.folder}: {data.n_slices} slices of {len(data.subjects)} subjects{left_out}",
    }


def main(argv: Sequence[str]) -> int:
    """Run the test, write its results folder and print a table; or check the data folder."""
    options = parse(argv)
    if options.check_data:
        return report(check_data(Path(options.dataroot)), table_in=options.results)
    evaluation = make_evaluation(options)
    skipped = evaluation.data.skipped
    if skipped:
        warn(f"--skip_bad left out {told(skipped, options.results)}")
    fresh_folder(options.results)
    record, table = evaluation.run()
    write_json(options.results / "metrics.json", record.as_json(DEFINITIONS))
    write_csv(options.results / "metrics.csv", table.rows, MEASURES)
    stems = evaluation.stems() if evaluation.model.can_synthesise else {}
    page = options.results / "index.html"
    shown = facts(options, evaluation.model, evaluation.data)
    write_report(page, record, title=options.name, facts=shown, stems=stems, definitions=DEFINITIONS)
    print_summary(record)
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    run_cli(main, Path(sys.argv[0]).name)
