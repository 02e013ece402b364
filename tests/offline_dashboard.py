"""Watches a real short training in headless Chromium, server and all, and prints what it saw as JSON.

`python tests/offline_dashboard.py FOLDER`, best in a network namespace of its own, which has no way out:
`unshare -rn python tests/offline_dashboard.py FOLDER`. Leaves `dashboard.png` and the programs' output in FOLDER.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from conftest import train_arguments, write_phantom
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
SECONDS = 120.0
IFF_UP, SIOCSIFFLAGS = 1, 0x8914
PANES = """() => [...document.querySelectorAll('.window')].map(pane => {
  const plot = pane.querySelector('.js-plotly-plot'), image = pane.querySelector('img');
  return {
    title: pane.querySelector('.bar').innerText.split('\\n').pop(),
    text: pane.querySelector('table')?.innerText ?? '',
    image: image ? [image.naturalWidth, image.naturalHeight] : null,
    points: plot ? Object.fromEntries(plot.data.map(trace => [trace.name, trace.x.length])) : null,
    drawn: plot ? [...plot.querySelectorAll('.trace.scatter')].filter(
      trace => trace.getBoundingClientRect().width > 0 || trace.querySelector('path.point')).length : 0,
  };
})"""


def loopback_up() -> None:
    """In a new network namespace the loopback interface is down."""
    with socket.socket() as any_socket, suppress(PermissionError):  # not in a namespace of our own: it is up
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def wait_for(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + SECONDS
    while not (value := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
    return value


def environments(port: int) -> list[str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/env_state", b"{}", timeout=5) as reply:
            return json.loads(reply.read())
    except OSError:
        return []


def start(command: list[str], folder: Path, name: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (folder / f"{name}.txt").open("wb") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)


def panes(page: Page) -> dict[str, dict[str, Any]]:
    return {pane["title"].strip(): pane for pane in page.evaluate(PANES)}


def points(page: Page, title: str, name: str) -> int:
    pane = panes(page).get(title, {})
    return (pane.get("points") or {}).get(name, 0)


def watch(page: Page, port: int, train: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a person would see in the browser."""
    seen: dict[str, Any] = {"outside": [], "errors": []}
    local = (f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/", "data:", "blob:")
    page.on("request", lambda asked: asked.url.startswith(local) or seen["outside"].append(asked.url))
    page.on("response", lambda got: got.status < 400 or seen["errors"].append(f"{got.status} {got.url}"))
    page.on("console", lambda said: said.type != "error" or seen["errors"].append(said.text))
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.goto(f"http://127.0.0.1:{port}/env/watched")
    title, loss = "watched: gan, over its steps", "cycle"
    seen["first"] = wait_for(lambda: points(page, title, loss))
    wait_for(lambda: points(page, title, loss) > seen["first"] or train.poll() is not None)
    seen["running"] = train.poll() is None
    seen["later"] = points(page, title, loss)
    seen["status"] = train.wait(SECONDS)
    page.wait_for_timeout(3000)
    seen["last"] = points(page, title, loss)
    seen["panes"] = panes(page)
    return seen


def main(folder: Path) -> None:
    loopback_up()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["bash", str(ROOT / "scripts" / "dashboard.sh"), "-port", str(port), "-env_path", "env"]
    server = start(command, folder, "server")
    try:
        wait_for(lambda: environments(port) or server.poll() is not None)
        data = write_phantom(folder / "data")
        length = ("--n_epochs=10", "--n_epochs_decay=0", "--batch_size=2", "--print_freq=2")
        options = ("--name=watched", "--display_id=1", f"--display_port={port}", *length)
        arguments = train_arguments(data, folder / "out", "cycle_gan", *options)
        train = start([sys.executable, str(ROOT / "train.py"), *arguments], folder, "train")
        wait_for(lambda: "watched" in environments(port) or train.poll() is not None)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=next(path for path in CHROMIUM if Path(path).exists()),
                args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            seen = watch(page, port, train)
            page.screenshot(path=str(folder / "dashboard.png"), full_page=True)
            browser.close()
    finally:
        server.kill()
        server.wait()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
