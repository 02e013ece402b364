"""Browser files of the visdom dashboard from the npm registry: `python -m scripts.dashboard_assets`.

visdom comes without the JavaScript that its page needs. It fetches that at its first start from four web sites, without
a check, and ends with a traceback where there is no internet. Here the same files come from packages of the npm
registry, each checked by its SHA-256 in dashboard_assets.json, and `static/version.built` tells visdom that nothing is
left to fetch. The registry is that of NPM_CONFIG_REGISTRY, of ~/.npmrc, or else of the npm that is installed; npm is
needed for nothing more. A folder works too (`NPM_CONFIG_REGISTRY=file:///media/usb`, with files as
`jquery/-/jquery-3.1.1.tgz`).

Nothing is fetched if all files are there and unchanged.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from util.errors import UserError, run_cli
from util.files import replace_files

LIST = Path(__file__).with_name("dashboard_assets.json")
VISDOM = "0.2.4"  # whose page needs exactly these files
TIMEOUT_S = 60
LARGEST_BYTES = 64 << 20  # of a package; the largest has 21 MB
INSTALL = (
    'pip install "setuptools<81" wheel && pip install --no-build-isolation -r requirements-dashboard.txt'  # as written
)

Packages = Mapping[str, Any]  # NAME@VERSION -> its SHA-256 and its files


def registry(environment: Mapping[str, str], home: Path) -> str:
    """The npm registry's address as npm itself finds it: environment, then ~/.npmrc, then what npm has built in.

    Raises:
        UserError: nothing names one, and npm is not installed.
    """
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if environment.get(name):
            return environment[name].rstrip("/")
    settings = Path(environment.get("NPM_CONFIG_USERCONFIG", home / ".npmrc"))
    try:
        found = re.findall(r"^\s*registry\s*=\s*(\S+)", settings.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        found = []
    if not found:
        found = _registry_of_npm(environment)
    if not found:
        raise UserError(
            "no npm registry is known, from which the dashboard's browser files come once: npm is not there or gives "
            f"none, and neither NPM_CONFIG_REGISTRY nor {settings} names one; install npm, or set NPM_CONFIG_REGISTRY "
            "to a registry's address"
        )
    return found[-1].strip("\"'").rstrip("/")


def _registry_of_npm(environment: Mapping[str, str]) -> list[str]:
    """What npm answers, one address, or nothing if there is no npm that answers."""
    npm = shutil.which("npm", path=environment.get("PATH", ""))
    if npm is None:
        return []
    command = [npm, "config", "get", "registry"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^\s*([a-z]+://\S+)\s*$", answer, re.MULTILINE)


def static_folder() -> Path:
    """The folder `static` of the installed visdom.

    Raises:
        UserError: visdom is missing, or has another version.
    """
    spec = importlib.util.find_spec("visdom")
    if spec is None or spec.origin is None:
        raise UserError(f"visdom is not installed here; the dashboard's server needs it: {INSTALL}")
    version = importlib.metadata.version("visdom")
    if version != VISDOM:
        raise UserError(f"visdom {version} is installed, the dashboard's server needs {VISDOM}: {INSTALL}")
    return Path(spec.origin).parent / "static"


def missing(packages: Packages, static: Path) -> list[str]:
    """The packages of which a file is not in `static`, or not as it should be."""
    return [
        name
        for name, package in packages.items()
        if any(_digest_of(static / file["to"]) != file["sha256"] for file in package["files"].values())
    ]


def fetch(name: str, package: Mapping[str, Any], static: Path, source: str) -> None:
    """Fetch one package from the registry `source` and put its files into `static`.

    Raises:
        UserError: it cannot be fetched or written, or is not what it should be; `static` is unchanged then.
    """
    package_name, _, version = name.rpartition("@")
    address = f"{source}/{package_name}/-/{package_name}-{version}.tgz"
    archive = _download(address)
    digest = hashlib.sha256(archive).hexdigest()
    if digest != package["sha256"]:
        raise UserError(
            f"{address} is not the file that this project knows: its SHA-256 is {digest}, not {package['sha256']}; "
            f"nothing of it was installed. The registry {source} gives another file, or the way to it is disturbed"
        )
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as content:
            for path, file in package["files"].items():
                member = content.extractfile(f"package/{path}")
                _install(static / file["to"], member.read() if member else b"", file["sha256"])
    except OSError as error:
        raise UserError(f"cannot write the dashboard's browser files into {static}: {error}") from error


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as reply:
            content: bytes = reply.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # an address that is none, no connection, no such file
        raise UserError(
            f"cannot fetch {address}: {error}. The dashboard's browser files come from the npm registry once; "
            "name another one with NPM_CONFIG_REGISTRY, or run this where it can be reached"
        ) from error
    return content


def _install(path: Path, content: bytes, digest: str) -> None:
    assert hashlib.sha256(content).hexdigest() == digest, path  # the package's own digest was right
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_files({path: lambda file: file.write(content)})


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def main(argv: Sequence[str]) -> None:
    """Complete the browser files of the visdom that is installed."""
    parser = argparse.ArgumentParser(
        prog="dashboard_assets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    packages = json.loads(LIST.read_text(encoding="utf-8"))
    static = static_folder()
    needed = missing(packages, static)
    if needed:
        source = registry(os.environ, Path.home())
        print(f"fetching {len(needed)} packages of the dashboard's browser files (23 MB in all) from {source}")
        for name in needed:
            fetch(name, packages[name], static, source)
    built = static / "version.built"
    if not built.exists() or built.read_text(encoding="utf-8").strip() != VISDOM:
        try:
            replace_files({built: lambda file: file.write(VISDOM.encode())})
        except OSError as error:
            raise UserError(f"cannot write {built}: {error}") from error


if __name__ == "__main__":
    run_cli(main, "dashboard_assets")
