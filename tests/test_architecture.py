"""The layers of the code: who may import whom, and what no file may contain."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {
    "benchmarks",
    "data",
    "evaluation",
    "models",
    "options",
    "preprocessing",
    "simulation",
    "training",
    "util",
    "scripts",
    "train",
    "test",
    "preprocessing_images",
    "programs",
}
ALLOWED = {
    "util": {"util"},
    "data": {"data", "util"},
    "models": {"models", "util", "data.batch"},
    "preprocessing": {"preprocessing", "data.folder", "util"},
    "simulation": {"simulation", "preprocessing", "data.folder", "util"},
    "options": {"options", "util", "models", "data", "preprocessing", "simulation"},
    "training": {"training", "options", "models", "data", "util"},
    "evaluation": {"evaluation", "models", "data", "preprocessing", "util"},
    "benchmarks": {
        *("benchmarks", "training", "evaluation", "options", "models", "data", "preprocessing", "simulation", "util"),
    },
}


def imported(path: Path) -> set[str]:
    """Dotted names of our own modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module in OURS:  # from data import sampling
                names |= {f"{node.module}.{alias.name}" for alias in node.names} - {node.module}
    return {name for name in names if name.split(".")[0] in OURS}


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


# programs/ holds what the programs import once their command line stands
ENTRY_POINTS = ("train.py", "test.py", "preprocessing_images.py", *(f"programs/{p.name}" for p in files("programs")))


@pytest.mark.parametrize("folder", ALLOWED)
def test_layers(folder: str) -> None:
    assert files(folder)
    for path in files(folder):
        for name in imported(path):
            allowed = any(name == a or name.startswith(a + ".") for a in ALLOWED[folder])
            parent_of_allowed = any(a.startswith(name + ".") for a in ALLOWED[folder])
            assert allowed or parent_of_allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_models_know_no_more_of_data_than_the_batch() -> None:
    for path in files("models"):
        assert {name for name in imported(path) if name.startswith("data")} <= {"data.batch"}, path


def test_a_data_folder_knows_nothing_of_its_cache() -> None:
    for path in files("data/folder"):
        assert not {name for name in imported(path) if name.startswith("data.cache")}, path


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points_are_wiring(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 110


def test_no_file_outgrows_one_idea() -> None:
    for folder in ALLOWED:
        for path in files(folder):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_no_class_moves_global_state() -> None:
    """Seeds, cudnn flags and device choices belong to the programs: a class that sets them changes others' chance."""
    forbidden = ("manual_seed_all", "cudnn.benchmark", "cuda.set_device", "np.random.seed", "random.seed(")
    for folder in ALLOWED:
        for path in files(folder):
            text = path.read_text(encoding="utf-8")
            assert not any(word in text for word in forbidden), path
            assert not seeds_outside_a_fork(ast.parse(text)), path


def seeds_outside_a_fork(tree: ast.AST) -> bool:
    """Whether torch.manual_seed is called outside `with torch.random.fork_rng(...)`."""
    if isinstance(tree, ast.With) and any("fork_rng" in ast.unparse(item) for item in tree.items):
        return False
    if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "torch.manual_seed":
        return True
    return any(map(seeds_outside_a_fork, ast.iter_child_nodes(tree)))


def test_a_seed_outside_a_fork_is_found() -> None:
    assert seeds_outside_a_fork(ast.parse("def f():\n    torch.manual_seed(0)"))
    assert not seeds_outside_a_fork(ast.parse("with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)"))
