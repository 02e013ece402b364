"""manifest.json as anybody may have written it: every field checked, and named by its place in the file."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_heads import write_heads

from data.folder.manifest import MANIFEST_NAME, MAX_BYTES, read_manifest, write_manifest
from data.folder.slice_folder import SliceFolder
from util.errors import UserError
from util.reading import MAX_JSON_BYTES


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of a manifest of 8 volumes of 5 slices."""
    root = write_heads(tmp_path_factory.mktemp("data"))
    return json.loads((root / MANIFEST_NAME).read_text())


def refusal(root: Path, text: str | bytes) -> str:
    """What reading this text as a manifest is refused with, after the file's name."""
    path = root / MANIFEST_NAME
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read_manifest(root)
    assert time.process_time() - start < 20  # of the processor, however busy the machine is
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 400, message
    return message.removeprefix(f"{path}: ")


def slice_of(content: dict[str, Any]) -> dict[str, Any]:
    return content["volumes"][3]["slices"][2]


SINGULAR = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
VALUES = {  # field of volumes[3], or of its slices[2]: values that it must not have
    "subject": ["", "a" * 231, "a\nb", 5, None, ["sub"]],
    "split": ["Train", "../test", 1],
    "domain": ["C", "", None],
    "source": [7, None],
    "shape": ["abc", [4, 4], [4, 4, 0], [4, 4, -4], [10**6, 10**6, 10**6], [1e3, 4, 4], [True, 4, 4], {"0": 4}],
    "affine": [None, "eye", [], SINGULAR, [[1, 0], [0, 1]], [[0] * 4] * 4, [[10**400, 0, 0, 0]] * 4, [[1e300] * 4] * 4],
    "spacing_mm": [[1, 1], [1, 1, 0], [1, -1, 1], 5, [[1], 1, 1]],
    "slice_axis": [3, -1, 1.5, "2", True],
    "window": [[0], [1, 0], [0, 0], "01", None],
    "truth_window": [[1, 1], {}],
    "sform": [SINGULAR, 1],
    "qform_code": [-1, 10**9, "1"],
    "slices": ["sub_000.png", None, {}, [1], [None], ["sub_000.png"]],
}
SLICE_VALUES = {
    "file": ["../../x.png", "/etc/x.png", "a/b.png", "..", ".x.png", "x", "x.txt", "a\\b.png", "x\n.png", "", 3, None],
    "index": [-1, 10**30, 1.5, "3", None, 100],
    "p": [-0.1, 1.1, "0.5", None, True, [0.5], 10**400],
    "level_mm": ["5", [], 10**400],
}


def test_every_field_is_checked_and_named(tmp_path: Path, valid: dict[str, Any]) -> None:
    n_cases = 0
    for fields, owner, place in ((VALUES, None, "volumes[3]"), (SLICE_VALUES, slice_of, "volumes[3].slices[2]")):
        for name, values in fields.items():
            for value in values:
                content = copy.deepcopy(valid)
                (owner(content) if owner else content["volumes"][3])[name] = value
                message = refusal(tmp_path, json.dumps(content))
                assert message.startswith(f"{place}.{name}"), (name, value, message)
                n_cases += 1
    assert n_cases > 70


def test_missing_and_unknown_fields_are_named(tmp_path: Path, valid: dict[str, Any]) -> None:
    for remove, place in (
        (lambda content: content.pop("volumes"), "object missing required field `volumes`"),
        (lambda content: content["volumes"][3].pop("affine"), "volumes[3]: object missing required field `affine`"),
        (lambda content: slice_of(content).pop("p"), "volumes[3].slices[2]: object missing required field `p`"),
        (
            lambda content: slice_of(content).update(run="os.system"),
            "volumes[3].slices[2]: object contains unknown field `run`",
        ),
        (lambda content: content.update(model="x"), "object contains unknown field `model`"),
        (lambda content: content.update(origin="elsewhere"), "origin: invalid enum value 'elsewhere'"),
        (lambda content: content.update(settings=[]), "settings: expected `object`, got `array`"),
        (lambda content: content.update(format=2), "format: invalid enum value 2"),
        (lambda content: content.pop("format"), "object missing required field `format`"),
        (lambda content: content["volumes"].append(slice_of(content)), "volumes[8]: object contains unknown field"),
        (lambda content: content.update(volumes=slice_of(content)), "volumes: expected `array`, got `object`"),
    ):
        content = copy.deepcopy(valid)
        remove(content)
        assert refusal(tmp_path, json.dumps(content)).startswith(place)


def test_nothing_is_given_twice(tmp_path: Path, valid: dict[str, Any]) -> None:
    def twice(content: dict[str, Any], key: str) -> None:
        slice_of(content)[key] = content["volumes"][3]["slices"][0][key]

    for change, place in (
        (lambda content: twice(content, "file"), "volumes[3].slices[2].file"),
        (lambda content: twice(content, "index"), "volumes[3].slices[2].index"),
        (lambda content: content["volumes"].append(content["volumes"][3]), "volumes[8].subject"),
        (lambda content: content["volumes"][4].update(subject=content["volumes"][3]["subject"].upper()), "volumes[4]"),
    ):
        content = copy.deepcopy(valid)
        change(content)
        assert refusal(tmp_path, json.dumps(content)).startswith(place)


BOMBS: dict[str, Callable[[], str | bytes]] = {
    "empty": lambda: "",
    "text": lambda: "no JSON",
    "list": lambda: "[]",
    "number": lambda: "5",
    "NaN": lambda: '{"format": NaN}',
    "infinity": lambda: '{"format": -Infinity}',
    "digits": lambda: '{"format": ' + "9" * 10000 + "}",
    "nested": lambda: "[" * 100000 + "]" * 100000,
    "nested objects": lambda: '{"a":' * 100000 + "1" + "}" * 100000,
    "not UTF-8": lambda: b'{"format": "\xff"}',
    "half a character": lambda: r'{"origin": "\ud800"}',
    "UTF-16": lambda: '{"format": 1}'.encode("utf-16"),
    "zeros": lambda: bytes(1000),
    "many values": lambda: "[" + "[]," * 5_000_000 + "[]]",
    "many names": lambda: '{"format": 1' + ',"a":1' * 4_600_000 + "}",
    "large and not ASCII": lambda: ('{"format": "é' + " " * 70_000_000).encode(),
    "300 MB": lambda: b" " * 300_000_000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_is_no_manifest_is_refused(tmp_path: Path, kind: str) -> None:
    assert refusal(tmp_path, BOMBS[kind]())


def test_a_manifest_that_is_no_file_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    path = tmp_path / "data" / MANIFEST_NAME
    for target, words in (
        (tmp_path / "secret.json", "a link out of"),
        ("manifest.json", "cannot be read"),
    ):
        path.symlink_to(target)
        with pytest.raises(UserError, match=words):
            read_manifest(path.parent)
        path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        read_manifest(path.parent)
    path.rmdir()
    assert read_manifest(path.parent) is None


def test_what_is_written_is_read_again_also_after_a_change(tmp_path: Path) -> None:
    root = write_heads(tmp_path)
    first = read_manifest(root)
    assert first is not None and read_manifest(root) is first  # parsed once for all folders
    (root / MANIFEST_NAME).unlink()
    write_manifest(root, first)
    assert read_manifest(root) == first
    assert SliceFolder(root, "test", "A").subjects[0] == "sub-1"
    assert (root / MANIFEST_NAME).stat().st_size < MAX_JSON_BYTES


@pytest.mark.slow
def test_a_million_slices_are_read_within_a_gigabyte(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmarks.speed.start import memory_mb, make_manifest;"
        "from data.folder.manifest import read_manifest; root = Path(sys.argv[1]);"
        "make_manifest(root, 500_000); before = memory_mb(); manifest = read_manifest(root);"
        "print(sum(len(volume.slices) for volume in manifest.volumes), memory_mb() - before)"
    )
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    slices, memory = done.stdout.split()
    assert int(slices) == 10**6 and float(memory) < 1000, done.stderr
    assert (tmp_path / MANIFEST_NAME).stat().st_size < MAX_BYTES
