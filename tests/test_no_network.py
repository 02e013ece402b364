"""Nothing of ours opens a connection, runs a shell or unpickles: read off the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NETWORK = {
    *("aiohttp", "ftplib", "http", "httpx", "huggingface_hub", "imaplib", "nntplib", "paramiko", "poplib", "requests"),
    *(
        "smtplib",
        "socket",
        "socketserver",
        "ssl",
        "telnetlib",
        "urllib3",
        "visdom",
        "websocket",
        "websockets",
        "xmlrpc",
    ),
}
MAY_IMPORT = {
    ("training/log/dashboard.py", "visdom"),
    ("training/run_lock.py", "socket"),
    ("scripts/dashboard_server.py", "visdom"),
    ("scripts/dashboard_assets.py", "urllib"),  # fetches the dashboard's browser files, when that is asked for
}
NEVER_CALLED = (
    "load_state_dict_from_url",
    "download_url_to_file",
    "urlopen",
    "urlretrieve",
    "shell=True",
    "os.system(",
)
OURS = ("benchmarks", "data", "evaluation", "models", "options", "preprocessing", "scripts", "simulation", "training")
OURS += ("util",)


def our_code() -> list[Path]:
    files = [path for folder in OURS for path in (ROOT / folder).rglob("*.py")]
    return [*files, *ROOT.glob("*.py")]


def test_nothing_of_ours_opens_a_connection_but_the_dashboard() -> None:
    """urllib.parse takes addresses apart and opens none; a socket's host name is this machine's own."""
    for path in our_code():
        text = path.read_text(encoding="utf-8")
        fetches = (str(path.relative_to(ROOT)), "urllib") in MAY_IMPORT
        assert not any(word in text for word in NEVER_CALLED if not (fetches and word == "urlopen")), path
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.partition(".")[0]
                assert root not in NETWORK or (str(path.relative_to(ROOT)), root) in MAY_IMPORT, (path, name)
                assert root != "urllib" or name == "urllib.parse" or fetches, (path, name)


def test_sockets_that_are_allowed_only_ask_for_the_host_name() -> None:
    for name, module in MAY_IMPORT:
        if module == "socket":
            uses = [
                node.attr
                for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module
            ]
            assert set(uses) <= {"gethostname"}, name


def test_only_the_dashboards_own_script_fetches() -> None:
    """No program, and nothing that a program imports, has a use for it."""
    for path in our_code():
        text = path.read_text(encoding="utf-8")
        if path.name not in ("dashboard_assets.py", "dashboard_server.py"):
            assert "import dashboard_assets" not in text and "scripts.dashboard_assets import" not in text, path


def test_torch_load_is_always_weights_only() -> None:
    """Also numpy's: never with allow_pickle=True; and nobody imports pickle."""
    for path in our_code():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {
                    "pickle",
                    "dill",
                    "cloudpickle",
                    "marshal",
                    "shelve",
                }, path
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"):
                continue
            module = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if module == "torch":
                assert given.get("weights_only") is True, path
            if module == "np":
                assert given.get("allow_pickle") is False, path
