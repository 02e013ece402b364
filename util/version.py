"""`--version`: the versions of this project, of torch and of Python, without importing torch."""

from __future__ import annotations

import argparse
import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def project_version() -> tuple[str, str]:
    """Name and version of this project, from its pyproject.toml. Raises OSError, ValueError, LookupError."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return project["name"], project["version"]


def versions() -> str:
    """One line, for example `pta-mri 0.1.0, torch 2.8.0, Python 3.11.9`."""
    try:
        ours = " ".join(project_version())
    except (OSError, ValueError, LookupError):
        ours = f"unknown version ({PROJECT} cannot be read)"
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    return f"{ours}, torch {torch}, Python {platform.python_version()}"


class ShowVersions(argparse.Action):
    """Prints the versions and ends the program with status 0."""

    def __init__(self, option_strings: list[str], **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=settings.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(versions())
        parser.exit()
