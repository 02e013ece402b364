"""Names that are HTML or code: reports show them as text, as a parser and as a real browser read the pages."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import train_arguments, write_phantom

import preprocessing_images
import test as test_program
import train
from data.folder.manifest import read_manifest

# a file's name cannot hold a slash; every one of these would set the page's title if it were taken for HTML
NAMES = [
    "<script>document.title=1337<!--",
    "<img src=x onerror=document.title=1337>",
    "\"'><svg onload=document.title=1337>",
    "javascript:document.title=1337",
    "&lt;script&gt;&amp;",
]
RUN = "<img src=x onerror=document.title=1337>\"'&"
LINKS = ("href", "src", "action", "formaction", "data", "srcdoc")
OUR_SCRIPTS: dict[str, list[dict[str, str | None]]] = {  # by page; all of them stand in it
    "training": [{"type": "application/json", "id": "report-data"}, {}],
    "test": [{"type": "application/json", "id": "slices-data"}, {}],
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(HTMLParser):
    """What a page holds: its elements, their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of a run with a hostile name, on a folder with a hostile name, of hostile subjects."""
    place = tmp_path_factory.mktemp("reports")
    dataroot = write_phantom(place / NAMES[1] / "data", slices=4)
    for folder in dataroot.iterdir():
        if folder.name.startswith("test"):
            for path in sorted(folder.iterdir()):
                subject, _, index = path.stem.rpartition("_")
                path.rename(folder / f"{NAMES[int(subject[-1])]}{folder.name[:5]}_{index}.png")
    common = ["--gpu_ids=-1", f"--name={RUN}"]
    train.main([*train_arguments(dataroot, place, "cycle_gan"), *common, "--html", "--update_html_freq=4"])
    test_program.main([*common, f"--dataroot={dataroot}", f"--checkpoints_dir={place}", f"--results_dir={place / 'r'}"])
    return {"training": place / RUN / "web/index.html", "test": next((place / "r").rglob("index.html"))}


@pytest.mark.parametrize("kind", ["training", "test"])
def test_no_name_becomes_an_element_or_a_link(pages: dict[str, Path], kind: str) -> None:
    page = Page(pages[kind])
    assert {tag for tag, _ in page.tags} & {"html", "table", "img"} == {"html", "table", "img"}
    assert not {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "base", "form"}
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == OUR_SCRIPTS[kind]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in LINKS:
            link = (attributes.get(name) or "").strip().lower()
            assert not link.startswith(("javascript:", "data:text", "vbscript:", "http:", "https:", "//")), link
    assert RUN in page.text
    assert NAMES[1] in page.text  # in the data folder's path


Browser = Callable[[Path], str]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """A page as the browser has it once its scripts have run.

    Skipped where none is installed, or the one installed cannot show even an empty page (a container without what it
    needs): no fault of ours. After that, a page of ours that yields nothing fails.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")

    def show(address: str) -> str:
        profile = tmp_path_factory.mktemp("profile")
        command = [found, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--virtual-time-budget=3000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout

    if not show("about:blank"):
        pytest.skip(f"{found} cannot show an empty page here")
    return lambda page: show(page.as_uri())


@pytest.mark.parametrize("kind", ["training", "test"])
def test_a_real_browser_shows_names_as_text(
    pages: dict[str, Path], kind: str, browser: Browser, tmp_path: Path
) -> None:
    shutil.copytree(pages[kind].parent, tmp_path / "page")  # to an address that needs no quoting
    shown = browser(tmp_path / "page/index.html")
    (tmp_path / "dom.html").write_text(shown, encoding="utf-8")
    title = shown.partition("<title>")[2].partition("</title>")[0]
    assert "1337" in title and title != "1337"  # the run's name as it was typed
    dom = Page(tmp_path / "dom.html")
    assert [attributes for tag, attributes in dom.tags if tag == "script"] == OUR_SCRIPTS[kind]
    assert not [attributes for _, attributes in dom.tags if "onerror" in attributes or attributes.get("src") == "x"]
    assert RUN in dom.text


def test_the_browser_would_run_what_is_not_escaped(browser: Browser, tmp_path: Path) -> None:
    """The control: without escaping, the name takes the page over."""
    (tmp_path / "index.html").write_text(f"<title>report</title><p>{RUN}</p>", encoding="utf-8")
    assert "<title>1337</title>" in browser(tmp_path / "index.html")


def test_preprocessing_keeps_hostile_names_out_of_file_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also brackets, which a terminal table would take for its own markup."""
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in (20, 24, 6)), indexing="ij")
    volume = (((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1) * (800 + 400 * x * y)).astype(np.float32)
    (tmp_path / "in").mkdir()
    for name in NAMES:
        (tmp_path / "in" / f"{name}.nii").write_bytes(nibabel.Nifti1Image(volume, np.diag([2, 2, 5, 1])).to_bytes())
    out = tmp_path / "[bold]x[" / "]out[/red]"
    assert preprocessing_images.main(["--input_A", str(tmp_path / "in"), "--out", str(out), "--workers", "1"]) == 0
    assert "[/red]" in capsys.readouterr().out.replace("\n", "")
    manifest = read_manifest(out)
    assert manifest is not None
    for entry in manifest.volumes:
        assert not set(entry.subject) & set("<>\"'&: =") and entry.source.removesuffix(".nii") in NAMES
