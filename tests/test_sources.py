"""What comments and documents point to is there: cited Markdown files and their sections, links, files in backticks.

And the tables of values in the documents are those of the code.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.pta_options import LOSS_PRESETS
from simulation.tissue import FIELDS_T, tissues_at

ROOT = Path(__file__).resolve().parent.parent
READ = (".md", ".py", ".sh")

PATH = r"""(?<![\w/.-])(?<!/ ")((?:[\w.-]+/)*[\w-]+\.md)\b"""  # not the end of a path that code puts together
SECTION = r"[\s#]+sections?[\s#]+(\d+(?:\.\d+)*)"  # of a citation that goes over a comment's lines too
CITATION = re.compile(rf"{PATH}(?:[)\]`]*,?{SECTION})?")
BARE_SECTION = re.compile(r"\bsections? (\d+(?:\.\d+)*)")
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def problems(text: str, place: Path, root: Path) -> list[str]:
    """Everything that `text`, which is or could be the file `place` under `root`, points to and that is not there."""
    found = [*_missing_citations(text, place, root)]
    if place.suffix == ".md":
        found += [*_missing_links(text, place, root), *_missing_own_sections(text), *_missing_paths(text, root)]
    return [f"{place.relative_to(root)}: {what}" for what in found]


def _missing_citations(text: str, place: Path, root: Path) -> Iterator[str]:
    for path, section in CITATION.findall(text):
        cited = next((folder / path for folder in (root, place.parent) if (folder / path).is_file()), None)
        if cited is None:
            yield f"cites {path}, which does not exist"
        elif section and section not in _numbers(cited.read_text(encoding="utf-8")):
            yield f"cites section {section} of {path}, which has no such heading"


def _missing_links(text: str, place: Path, root: Path) -> Iterator[str]:
    for target in LINK.findall(CODE.sub("", text)):
        path, _, anchor = target.partition("#")
        if ":" in path:  # another site
            continue
        file = place.parent / path if path else place
        if path and not file.exists():
            yield f"links to {target}, which does not exist"
        elif anchor:
            headings = HEADING.findall(file.read_text(encoding="utf-8") if path else text)
            if anchor not in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}:
                yield f"links to {target}, which is no heading there"


def _missing_own_sections(text: str) -> Iterator[str]:
    """Sections that a document with numbered headings names without a file are its own."""
    numbers = _numbers(text)
    for section in BARE_SECTION.findall(CITATION.sub("", text)) if numbers else []:
        if section not in numbers:
            yield f"names its own section {section}, which does not exist"


def _missing_paths(text: str, root: Path) -> Iterator[str]:
    """Paths in code that begin with one of the repository's folders; `*` may stand for anything."""
    folders = "|".join(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    for code in CODE.findall(text):
        for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./*-]*)", code):
            if not any(root.glob(path.rstrip("./"))):
                yield f"names {path}, which does not exist"


def _numbers(text: str) -> set[str]:
    """The numbers with which headings begin: `## 1. SGP` has 1, `### 3.2 The loss` has 3.2."""
    matches = (re.match(r"\d+(?:\.\d+)*", heading) for heading in HEADING.findall(text))
    return {match.group() for match in matches if match}


def files() -> list[Path]:
    """The repository's own files, those not yet committed included."""
    if (ROOT / ".git").exists():
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    else:  # downloaded as an archive
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in names if not name.startswith(".")]
    return [ROOT / name for name in names if name.endswith(READ) and (ROOT / name).is_file()]


def test_everything_pointed_to_exists() -> None:
    found = [what for path in files() for what in problems(path.read_text(encoding="utf-8"), path, ROOT)]
    assert not found, "\n".join(found)


def test_the_files_are_all_read() -> None:
    names = {str(path.relative_to(ROOT)) for path in files()}
    assert {"README.md", "SECURITY.md", "docs/method.md", "train.py", "models/losses.py", "scripts/demo.sh"} <= names


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A repository with one document of two sections, and one module."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "book.md").write_text("# Book\n\n## 1. One\n\n### 1.2 Two and more\n", encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "one_model.py").touch()
    return tmp_path


# written without a dot, or this file would cite them
BOOK, NOWHERE = "docs/book" + ".md", "nowhere" + ".md"


@pytest.mark.parametrize(
    "text",
    [
        f"as {BOOK} says",
        f"({BOOK} section 1)",
        f"{BOOK}, section 1.2.",
        f"# a comment: {BOOK}\n# section 1.2",
        f"[the book]({BOOK}), section 1",
        f"[two]({BOOK}#12-two-and-more) and [elsewhere](https://example.org/{NOWHERE[:7]})",
        "`models/one_model.py`, `models/`, `models/*_model.py`, `OUT/web/index.html`",
        "section 9 of a document without numbers",
    ],
)
def test_what_exists_is_found(house: Path, text: str) -> None:
    assert problems(text, house / ("README" + ".md"), house) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"as {NOWHERE} says", "which does not exist"),
        (f"({BOOK} section 2)", "section 2 of"),
        (f"{BOOK}, section 1.3", "section 1.3 of"),
        (f"# a comment: {BOOK}\n    # section 12", "section 12 of"),
        (f"[the book]({BOOK}), section 3", "section 3 of"),
        ("[a picture](docs/picture.png)", "links to docs/picture.png"),
        (f"[three]({BOOK}#three)", "no heading there"),
        ("`models/two_model.py`", "names models/two_model.py"),
        ("```\npython models/two_model.py\n```", "names models/two_model.py"),
        ("`models/*_network.py`", "names models/*_network.py"),
        ("## 1. One\n\nSee section 2.", "its own section 2"),
    ],
)
def test_what_is_missing_is_named(house: Path, text: str, complaint: str) -> None:
    found = problems(text, house / ("README" + ".md"), house)
    assert len(found) == 1 and complaint in found[0]


def test_comments_are_held_to_it_too(house: Path) -> None:
    module = house / "models" / "one_model.py"
    assert problems(f'"""The loss ({BOOK} section 1)."""', module, house) == []
    assert len(problems(f'"""The loss ({NOWHERE} section 1)."""', module, house)) == 1


def table_after(document: str, heading: str) -> list[list[str]]:
    """Cells of the first table's rows below a heading, the table's own head left out."""
    text = (ROOT / document).read_text(encoding="utf-8").split(f"\n{heading}\n")[1]
    lines = re.search(r"(^\|.*\|\n)+", text, re.MULTILINE)
    assert lines is not None
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines.group().splitlines()[2:]]


@pytest.mark.parametrize(
    ("heading", "time"), [("### 1.1 T1", "t1_ms"), ("### 1.2 T2", "t2_ms"), ("### 1.3 T2*", "t2star_ms")]
)
def test_relaxation_times_are_those_of_the_simulator(heading: str, time: str) -> None:
    tissues = ("white matter", "grey matter", "CSF", "fat", "muscle, skin", "bone", "pallidum", "blood")
    names = dict(zip(tissues, ("wm", "gm", "csf", "fat", "soft", "bone", "dgm", "blood"), strict=True))
    rows = table_after("docs/facts.md", heading)
    assert [row[0] for row in rows] == list(tissues)
    for name, *values in rows:
        used = [getattr(tissues_at(b0_t, None, (names[name],))[names[name]], time) for b0_t in FIELDS_T]
        assert [float(value) for value in values] == pytest.approx(used), name


def test_loss_presets_are_those_of_the_model() -> None:
    rows = table_after("docs/method.md", "### 3.3 The generators' loss")
    assert len(rows) == len(LOSS_PRESETS)
    for name, *values, _origin in rows:
        preset = LOSS_PRESETS[name.split("`")[1]]
        wanted = (preset.syn, preset.syn_A, preset.idt, preset.cycle, preset.adv, preset.seg)
        assert tuple(float(value) for value in values) == wanted, name
