"""The dashboard's browser files: where they come from, that only the right ones are installed, what is said else."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from scripts import dashboard_assets, dashboard_server
from scripts.dashboard_assets import LIST, VISDOM, fetch, main, missing, registry
from util.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def made_up_registry(folder: Path, name: str, version: str, files: dict[str, bytes]) -> dict[str, Any]:
    """A registry of one package, as a folder. Returns the package's entry in dashboard_assets.json."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path = folder / name / "-" / f"{name}-{version}.tgz"
    path.parent.mkdir(parents=True)
    path.write_bytes(archive.getvalue())
    listed = {path: {"to": f"js/{Path(path).name}", "sha256": sha256(content)} for path, content in files.items()}
    return {"sha256": sha256(archive.getvalue()), "files": listed}


@pytest.fixture
def package(tmp_path: Path) -> dict[str, Any]:
    return made_up_registry(tmp_path / "registry", "plots", "1.2.3", {"dist/plots.js": b"draw()", "LICENSE": b"free"})


def test_the_registry_is_found_as_npm_finds_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no npm registry is known.*npm is not there or gives none, and neither"):
        registry({}, tmp_path)
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text('#!/bin/sh\n[ "$*" = "config get registry" ] && echo https://of-npm.example/\n')
    npm.chmod(0o755)
    with_npm = {"PATH": str(npm.parent)}
    assert registry(with_npm, tmp_path) == "https://of-npm.example"
    npm.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="no npm registry is known"):
        registry(with_npm, tmp_path)
    (tmp_path / ".npmrc").write_text("fund=false\nregistry = https://mirror.example/npm/\n")
    assert registry(with_npm, tmp_path) == "https://mirror.example/npm"
    (tmp_path / "other").write_text('registry="https://other.example"\n')
    assert registry({"NPM_CONFIG_USERCONFIG": str(tmp_path / "other")}, tmp_path) == "https://other.example"
    assert registry({"npm_config_registry": "https://lower.example/"}, tmp_path) == "https://lower.example"
    both = {"NPM_CONFIG_REGISTRY": "https://upper.example", "npm_config_registry": "https://lower.example"}
    assert registry(both, tmp_path) == "https://upper.example"


def test_files_are_installed_and_damaged_ones_again(package: dict[str, Any], tmp_path: Path) -> None:
    packages, static = {"plots@1.2.3": package}, tmp_path / "static"
    source = (tmp_path / "registry").as_uri()
    assert missing(packages, static) == ["plots@1.2.3"]
    fetch("plots@1.2.3", package, static, source)
    assert (static / "js" / "plots.js").read_bytes() == b"draw()"
    assert missing(packages, static) == []
    (static / "js" / "plots.js").write_bytes(b"spy()")
    assert missing(packages, static) == ["plots@1.2.3"]
    fetch("plots@1.2.3", package, static, source)
    assert missing(packages, static) == []


def test_another_file_is_refused_in_one_sentence_and_not_installed(package: dict[str, Any], tmp_path: Path) -> None:
    archive = tmp_path / "registry" / "plots" / "-" / "plots-1.2.3.tgz"
    archive.write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"plots-1\.2\.3\.tgz is not the file that this project knows: its SHA-256 is"):
        fetch("plots@1.2.3", package, tmp_path / "static", (tmp_path / "registry").as_uri())
    assert not (tmp_path / "static").exists()


def test_a_registry_that_cannot_be_reached_is_one_sentence(package: dict[str, Any], tmp_path: Path) -> None:
    for source in ((tmp_path / "nothing").as_uri(), "no address", "http://127.0.0.1:9"):
        with pytest.raises(UserError, match=r"cannot fetch .*plots-1\.2\.3\.tgz.*NPM_CONFIG_REGISTRY"):
            fetch("plots@1.2.3", package, tmp_path / "static", source)


def test_a_folder_that_cannot_be_written_is_one_sentence(package: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "static").write_text("a file")
    with pytest.raises(UserError, match="cannot write the dashboard's browser files into"):
        fetch("plots@1.2.3", package, tmp_path / "static", (tmp_path / "registry").as_uri())


def test_everything_is_installed_once(
    package: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.json").write_text(json.dumps({"plots@1.2.3": package}))
    monkeypatch.setattr(dashboard_assets, "LIST", tmp_path / "list.json")
    monkeypatch.setattr(dashboard_assets, "static_folder", lambda: tmp_path / "static")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "registry").as_uri())
    main([])
    assert "fetching 1 packages" in capsys.readouterr().out
    assert (tmp_path / "static" / "version.built").read_text() == VISDOM
    monkeypatch.setattr(urllib.request, "urlopen", None)
    main([])
    assert capsys.readouterr().out == ""


def test_visdom_must_be_there_in_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.3.0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: type("Spec", (), {"origin": "/v/__init__.py"}))
    with pytest.raises(UserError, match=r"visdom 0\.3\.0 is installed, the dashboard's server needs 0\.2\.4"):
        dashboard_assets.static_folder()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="visdom is not installed here"):
        dashboard_assets.static_folder()


def test_the_list_is_what_visdom_would_fetch_and_nothing_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """visdom's own start, over a folder that holds the listed files, opens no connection and writes no other file."""
    build = pytest.importorskip("visdom.server.build")
    requests = pytest.importorskip("requests")
    for package in json.loads(LIST.read_text(encoding="utf-8")).values():
        for file in package["files"].values():
            path = tmp_path / "static" / file["to"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
    (tmp_path / "static" / "version.built").write_text(VISDOM)
    listed = sorted(tmp_path.rglob("*"))

    def refused(*arguments: object, **more: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(requests, "get", refused)
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refused)
    monkeypatch.setattr(urllib.request, "install_opener", lambda opener: None)
    build.download_scripts(install_dir=str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == listed


def test_tornado_is_one_whose_page_opens() -> None:
    """visdom's page asks for a file beside its static folder, which tornado refuses from 6.6 on."""
    tornado = pytest.importorskip("tornado")
    assert tornado.version_info < (6, 6)
    assert "tornado<6.6" in (ROOT / "requirements-dashboard.txt").read_text(encoding="utf-8")


def test_setup_goes_on_without_the_files_and_the_server_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    assert "-m scripts.dashboard_assets || true" in setup
    run_server = pytest.importorskip("visdom.server.run_server")
    monkeypatch.setattr(run_server, "main", lambda: pytest.fail("started"))

    def fail(argv: list[str]) -> None:
        raise UserError("cannot fetch")

    monkeypatch.setattr(dashboard_assets, "main", fail)
    with pytest.raises(UserError, match="cannot fetch"):
        dashboard_server.main([])


def test_the_server_listens_on_the_loopback_and_tells_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    run_server = pytest.importorskip("visdom.server.run_server")
    monkeypatch.setattr(dashboard_assets, "main", lambda argv: None)
    monkeypatch.setattr("sys.argv", [])
    with monkeypatch.context() as patch:
        patch.setattr(run_server, "start_server", lambda **options: started.append(options))
        started: list[dict[str, Any]] = []
        dashboard_server.main(["-port", "8099"])
        assert started[0] | {"bind_local": True, "hostname": "127.0.0.1", "port": 8099} == started[0]

    def taken(**options: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(run_server, "start_server", taken)
    with pytest.raises(UserError, match=r"the port is taken.*--display_port"):
        dashboard_server.main([])
