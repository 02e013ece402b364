"""benchmarks/floors.py: what is recorded of a network's step is what was computed, and its floors are times."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL_NETWORKS, SMALL_SGP
from torch import Tensor, nn

from benchmarks.compute import Bench, Case, flop, infer_case, median_seconds, train_case
from benchmarks.floors import LEAST_SHARE, Operation, Recorder, TensorKind, floors, flop_seconds, record

CPU = torch.device("cpu")
LITTLE = Case("pta_hybrid", 32, 2, "off", "-1", 0.1, (*SMALL_NETWORKS, *SMALL_SGP, "--lsc_blocks=8"))


def two_layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 7)
    )


def counts(recorder: Recorder) -> dict[str, int]:
    found: dict[str, int] = {}
    for operation in recorder.operations.values():
        name = operation.call._overloadpacket.__name__
        found[name] = found.get(name, 0) + operation.count
    return found


def test_the_operations_of_a_small_network() -> None:
    network, x = two_layers(), torch.randn(2, 3, 8, 8)

    def step() -> None:
        network(x).square().mean().backward()

    recorder = record(step)
    assert counts(recorder) == {"convolution": 2, "convolution_backward": 2, "addmm": 1, "mm": 2}
    first, second = 2 * 2 * 64 * 3 * 5 * 9, 2 * 2 * 64 * 5 * 4 * 9
    linear = 2 * 2 * 256 * 7
    assert recorder.flop == flop(step) == 2 * first + 3 * second + 3 * linear  # no gradient of x is needed
    twice = record(lambda: (step(), step()))
    assert len(twice.operations) == len(recorder.operations) and all(o.count == 2 for o in twice.operations.values())
    assert (twice.flop, twice.bytes) >= (2 * recorder.flop, 2 * recorder.bytes)  # gradients are added up, too


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_training_step_is_counted_as_torch_counts_it(amp: str) -> None:
    bench = Bench(replace(LITTLE, amp=amp))
    recorder = record(bench.step)
    assert recorder.flop == flop(bench.step) > 10**8
    types = {
        leaf.dtype for o in recorder.operations.values() for leaf in o.arguments[0] if isinstance(leaf, TensorKind)
    }
    assert (torch.bfloat16 in types) == (amp == "bf16")


def test_attention_of_the_cpu_is_timed_though_torch_does_not_count_it() -> None:
    q, k, v = (torch.randn(2, 2, 16, 8, requires_grad=True) for _ in "qkv")
    recorder = record(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert sum("attention" in name for name in counts(recorder)) == 2 and recorder.flop == 0
    assert flop_seconds(recorder, CPU) > 0


def moved(work: object) -> int:
    return record(work).bytes  # type: ignore[arg-type]


def test_bytes_of_single_operations() -> None:
    """(10, 10) in float32 is 400 bytes."""
    x, y = torch.randn(10, 10), torch.randn(10, 10)
    row = torch.randn(10, 1).expand(10, 10)
    assert moved(lambda: x + y) == 1200
    assert moved(lambda: x * x) == 800, "the same tensor once"
    assert moved(lambda: x.add_(y)) == 800, "what is read and written, once"
    assert moved(lambda: x + row) == 840, "what is expanded is read once"
    assert moved(lambda: x.t().view(100).detach()[3:] if x.t().is_contiguous() else x.t()[3:]) == 0, "views"
    assert moved(lambda: torch.empty_like(x)) == 0
    assert moved(lambda: torch.zeros(10, 10)) == 400
    assert moved(lambda: x.copy_(y)) == 800
    assert moved(lambda: x.to(torch.bfloat16)) == 600
    assert moved(lambda: x.t().contiguous()) == 800
    assert moved(lambda: x[:, :5].sum()) == 204, "the part that is read, not all of its memory"
    assert moved(lambda: torch._foreach_add_([x, y], 1.0)) == 800


def test_a_tensor_of_the_same_kind() -> None:
    originals = [
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(4, 1).expand(4, 6),
        torch.randn(6, 4).t()[1:],
        torch.arange(5),
        torch.zeros(0, 3),
        torch.tensor(1.5, dtype=torch.bfloat16),
    ]
    for original in originals:
        made = TensorKind.of(original).made()
        assert TensorKind.of(made) == TensorKind.of(original)
        assert not made.is_floating_point() or made.numel() < 2 or float(made.float().std()) > 0


def test_small_operations_run_at_the_mean_rate_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def seconds(operation: Operation, device: torch.device) -> float:
        asked.append(operation.flop)
        return operation.flop / (1000 if operation.flop > 5000 else 500) if operation.flop else 7.0

    monkeypatch.setattr(Operation, "seconds", seconds)
    recorder = Recorder()
    little = int(LEAST_SHARE * 30_000) // 2
    for name, flop_, count in (("a", 10_000, 2), ("b", 5000, 2), ("c", little, 1), ("uncounted", 0, 3)):
        recorder.operations[name] = Operation(None, ((), {}), flop_, count)
    expected = 2 * 10.0 + 2 * 10.0 + 3 * 7.0
    assert flop_seconds(recorder, CPU) == pytest.approx(expected + little * 40 / 30_000)
    assert asked == [10_000, 5000, 0]


def test_floors_lie_below_what_a_convolution_takes() -> None:
    layer, x = nn.Conv2d(32, 32, 3, padding=1), torch.randn(4, 32, 64, 64)

    def step() -> Tensor:
        return layer(x)

    with torch.no_grad():
        seconds = median_seconds(step, CPU, 0.3)
        found = floors(step, CPU, seconds)
    assert 0 < found["floor_bytes_s"] < 3 * seconds and 0.1 * seconds < found["floor_flop_s"] < 3 * seconds
    assert found["bytes_per_step"] == 4 * (2 * x.numel() + layer.weight.numel() + 32)
    assert found["over_floor"] == seconds / max(found["floor_flop_s"], found["floor_bytes_s"])


def test_the_cases_report_floors_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rates of the machine, which take seconds, are made up here."""
    for name in ("conv_rate", "copy_rate"):
        monkeypatch.setattr(f"benchmarks.compute.{name}", lambda *what: 1e9)
    monkeypatch.setattr("benchmarks.floors.copy_rate", lambda device: 1e9)
    monkeypatch.setattr("benchmarks.floors.SECONDS", 0.0)
    monkeypatch.setattr("benchmarks.compute.flop_by_term", lambda bench: {})
    for case in (train_case, infer_case):
        assert "over_floor" not in case(LITTLE)
        found = case(replace(LITTLE, floors=True))
        assert found["floor_bytes_s"] == found["bytes_per_step"] / 1e9 > 0
        assert found["over_floor"] == found["s_per_step"] / max(found["floor_flop_s"], found["floor_bytes_s"]) > 0
