"""What test.py opens and checks before any work, once its command line is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.cache.slice_cache import SliceCache
from data.scale import check_like_training
from evaluation.encoder import grid_of, load_encoder
from evaluation.evaluate import Evaluation
from evaluation.folders import TestData, open_test_data
from evaluation.metrics.inception_file import open_inception
from evaluation.metrics.lpips import open_lpips
from evaluation.predict import Device
from evaluation.protocols import Protocol, make_protocol
from evaluation.results import begin_results, claim_results
from models.pretrained import load_pretrained
from models.trained import load_trained
from options.test_options import TestOptions
from programs.volume import ADVICE, refuse_dataroot, slice_scans
from util.device import choose_device
from util.errors import UserError
from util.processes import Processes
from util.shared_folder import require_shared


def make_evaluation(options: TestOptions, argv: Sequence[str], processes: Processes) -> Evaluation:
    """Open and check everything before any work; with --dataset_mode volume, scans become slices first."""
    processes.alone(partial(refuse_dataroot, Path(options.dataroot), options.of_volumes))
    opened = processes.together(partial(open_networks, options, processes))
    source_domain = opened["model"].run["direction"][0]
    results, run = (options.results, options.overwrite), (options.run_dir, options.epoch)
    provenance = processes.alone(partial(claim_results, *results, opened["model"], *run, options.dataroot, argv))
    dataroot = Path(options.dataroot)
    if options.of_volumes:
        dataroot = slice_scans(options, opened["model"].run, processes)
    like = partial(check_like_training, options.run_dir, dataroot, options.phase, source_domain)
    processes.alone(partial(like, ADVICE) if options.of_volumes else like)
    again = options.revalidate and processes.first  # one process is enough
    cache = SliceCache(dataroot, options.cache, skip_bad=options.skip_bad, revalidate=again)
    data = open_test_data(
        dataroot,
        options.phase,
        table_in=options.results,
        direction=opened["model"].run["direction"],
        limit=options.num_test,
        skip_bad=options.skip_bad,
        cache=cache,
        processes=processes,
    )
    protocol = processes.together(partial(open_protocol, options, data, opened))
    provenance = processes.alone(partial(begin_results, *results, provenance, data))
    require_shared(options.results, "--results_dir", processes)
    trust = None
    if options.trust:
        from programs.trust import open_trust  # late: it brings what estimates noise, which few tests need

        place = options.run_dir, provenance.checkpoint_sha256
        opening = partial(open_trust, average_mirrored=options.average_mirrored, seed=options.seed)
        trust = processes.alone(partial(opening, opened["model"], *place, data.source, opened["grid"]))
    return Evaluation(
        **opened,
        data=data,
        results=options.results,
        provenance=provenance,
        seed=options.seed,
        with_baselines=options.baselines,
        average_mirrored=options.average_mirrored,
        protocol=protocol,
        trust=trust,
    )


def open_networks(options: TestOptions, processes: Processes) -> dict[str, Any]:
    """The run's model, the evaluation networks and their device, as arguments of `Evaluation`."""
    device = choose_device(options.gpu_ids, processes.local_rank)
    shipped = options.pretrained is not None
    model = (
        load_pretrained(options.run_dir, device) if shipped else load_trained(options.run_dir, options.epoch, device)
    )
    given = options.eval_encoder
    return {
        "model": model,
        "grid": grid_of(model),
        "on": Device(device, options.batch_size),
        "encoder": None if given is None else load_encoder(Path(given), model, device),
        "inception": open_inception(options.inception_weights, device),
        "lpips": open_lpips(options.lpips_weights, device),
    }


def open_protocol(options: TestOptions, data: TestData, opened: dict[str, Any]) -> Protocol | None:
    """The protocol that --protocol names, if any. Raises UserError if it needs a truth and there is none."""
    if options.protocol is None:
        return None
    protocol = make_protocol(options.protocol, opened["inception"], opened["lpips"], seed=options.seed)
    if protocol.needs_truth and not data.has_truth:
        folder = data.source.folder
        raise UserError(
            f"--protocol {protocol.name} compares with the truth, and there is no folder {folder.name}_truth beside "
            f"{folder}; without a truth only --protocol pta can score something"
        )
    return protocol
