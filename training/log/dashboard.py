"""The live visdom dashboard: a pane of curves a stage, one of labelled sample images, one that says how far the run is.

A slow or unavailable server never delays training: a background thread sends only the newest content of each pane, and
rests so long after it that it takes at most SHARE of a processor. Every content is complete (whole curves, not
increments), so a server that is started late, or restarted, shows everything.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlparse

import numpy as np

from options.display_options import DisplayOptions
from training.log.curve_store import Curves
from training.log.dashboard_panes import curves_pane, picture, picture_opts, text_pane
from training.log.follower import RATE, Values
from util.errors import UserError, printable

TIMEOUT_S = 5.0  # for one request to the server, in the background
RETRY_S = 30.0  # after a failure
CLOSE_S = 2.0  # longest wait for the last contents to be sent
REST_S = 1.0  # shortest rest between two rounds of sending
SHARE = 0.005  # of a processor that the background thread may take

Send = Callable[[Any], Any]  # sends one pane's content through a visdom client
RUN, IMAGES = "_run", "_images"  # panes that are not a stage's


def environment(options: DisplayOptions, name: str) -> str:
    """The visdom environment of the run called `name`."""
    return printable(name) if options.display_env is None else options.display_env


def address(options: DisplayOptions, name: str) -> str:
    """Where a browser finds the run's panes."""
    return f"{options.display_server}:{options.display_port}/env/{quote(environment(options, name), safe='')}"


def _connect(options: DisplayOptions, env: str) -> Any:
    """A visdom client that raises ConnectionError instead of blocking forever or printing tracebacks."""
    import visdom  # imported here: optional

    loopback = urlparse(options.display_server).hostname in ("localhost", "127.0.0.1", "::1")

    class Client(visdom.Visdom):
        session: Any  # a requests.Session, made by visdom at the first post

        def _handle_post(self, url: str, data: Any = None) -> str:
            self.session.trust_env = not loopback  # requests to this machine must not go through a proxy
            reply = self.session.post(url, data=data or {}, timeout=TIMEOUT_S)
            reply.raise_for_status()
            return reply.text

    logging.getLogger("visdom").setLevel(logging.ERROR)
    return Client(
        server=options.display_server,
        port=options.display_port,
        env=env,
        use_incoming_socket=False,
        raise_exceptions=True,
    )


def require_visdom(options: DisplayOptions) -> None:
    """Raise UserError if the dashboard is enabled and visdom is not installed.

    It is imported here, before the first step: that takes a second, in which a training thread would stand still.
    """
    if options.display_id <= 0:
        return
    if importlib.util.find_spec("visdom") is None:
        raise UserError(
            f"--display_id {options.display_id} needs visdom; install it as described in requirements-dashboard.txt"
        )
    try:
        importlib.import_module("visdom")
    except Exception as error:  # of whatever it imports
        raise UserError(
            f"--display_id {options.display_id} needs visdom, which cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _size(columns: Mapping[str, np.ndarray]) -> str:
    """Stands for the size of a picture in the name of its pane."""
    return f"-{len(columns)}x" + "x".join(map(str, next(iter(columns.values())).shape))


class Dashboard:
    """Panes `ID-KEY-STAGE`, `ID-KEY-_images-SIZE` and `ID-KEY-_run` of one run, in the environment of its name.

    ID is --display_id, KEY stands for the run folder, so two runs never write into each other's panes, also if they
    have one name or share an environment (--display_env).

    Args:
        warn: called once, from the background thread, when the server cannot be reached.
    Raises:
        UserError: visdom is not installed.
    """

    name = "dashboard"

    def __init__(self, options: DisplayOptions, run_dir: Path, warn: Callable[[str], None]) -> None:
        require_visdom(options)
        self._options, self._run_dir, self._warn = options, run_dir, warn
        self._title = printable(run_dir.name)
        key = hashlib.sha256(str(run_dir.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        self._prefix = f"{options.display_id}-{key}-"
        self._changed = threading.Condition()  # guards all that follows
        self._curves = Curves()
        self._samples: tuple[Mapping[str, np.ndarray], str] | None = None
        self._last: Values | None = None
        self._n_steps = 0
        self._pending: dict[str, None] = {}  # names of panes, in the order of their changes
        self._closing = self._warned = False
        self._sent: set[str] = set()  # panes that the server has; this and the next are the background thread's own
        self._size = ""  # of the pictures sent
        self._thread = threading.Thread(target=self._work, name="dashboard", daemon=True)
        self._thread.start()

    # called by the training thread ---------------------------------------------------------------------------------

    def resume(self, rows: Sequence[Values], stage: str, step: int) -> None:
        """Show the curves of the run so far."""
        with self._changed:
            for row in rows:
                self._curves.add(row)
            self._change(*self._curves.stages)

    def stage(self, name: str, n_steps: int) -> None:
        """A stage begins."""
        with self._changed:
            self._n_steps = n_steps
            self._last = Values(name, 0, 0, {})
            self._change(RUN)

    def row(self, row: Values) -> None:
        """Add a row to its stage's curves."""
        with self._changed:
            self._curves.add(row)
            self._last = row if RATE in row.values or self._last is None else self._last
            self._change(row.stage, RUN)

    def images(self, stage: str, epoch: int, step: int, columns: Mapping[str, np.ndarray]) -> None:
        """Show sample images, (H, W) uint8 by label."""
        with self._changed:
            self._samples = columns, f"{stage}, epoch {epoch}, step {step}"
            self._change(IMAGES)

    def close(self) -> None:
        """Send pending contents for at most CLOSE_S seconds, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)

    def _change(self, *panes: str) -> None:
        self._pending |= dict.fromkeys(panes)
        self._changed.notify_all()

    # the background thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        client = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if not self._pending:
                    return
            began = time.thread_time()
            try:
                client = self._round(client)
            except Exception as error:  # no error of the dashboard may stop training
                client = None
                self._report(error)
            rest = RETRY_S if client is None else max(REST_S, (time.thread_time() - began) / SHARE)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, rest)
                if client is None:
                    if self._closing:
                        return
                    self._pending |= self._all()

    def _round(self, client: Any) -> Any:
        """Send what has changed, and everything to a server that does not know the run. Returns the client."""
        env = environment(self._options, self._title)
        if client is None:
            client, self._sent = _connect(self._options, env), set()
            self._forget_earlier(client, env)
        elif not client.win_exists(self._prefix + RUN, env):  # the server was started again, or the pane was closed
            self._sent = set()
            with self._changed:
                self._pending |= self._all()
        with self._changed:
            changed, self._pending = self._pending, {}
            ordered = list(self._all())
            size = _size(self._samples[0]) if self._samples else ""
        if IMAGES in self._sent and size != self._size:  # a pane keeps its size, so a larger picture needs another
            client.close(win=self._window(IMAGES), env=env)
            self._sent.discard(IMAGES)
        self._size = size
        new = [pane for pane in ordered if pane in changed and pane not in self._sent]
        for pane in ordered[ordered.index(new[0]) :] if new else ():  # the page has its panes in the order of arrival
            if pane in self._sent:
                client.close(win=self._window(pane), env=env)
                changed[pane] = None
        for pane in ordered:
            if pane in changed:
                self._send(client, pane)
                self._sent.add(pane)
        return client

    def _window(self, pane: str) -> str:
        return self._prefix + pane + (self._size if pane == IMAGES else "")

    def _all(self) -> dict[str, None]:
        """All panes in the order of the page: how far the run is, pictures, curves of the newest stage first."""
        first = [RUN] * bool(self._last) + [IMAGES] * bool(self._samples)
        return dict.fromkeys([*first, *reversed(self._curves.stages)])

    def _forget_earlier(self, client: Any, env: str) -> None:
        """Close the panes of an earlier run in the same folder, which `--overwrite` has replaced."""
        if env not in client.get_env_list():
            return
        with self._changed:
            mine = {self._window(pane) for pane in self._all()}
        for window in json.loads(client.get_window_data(env=env)):
            if window.startswith(self._prefix) and window not in mine:
                client.close(win=window, env=env)

    def _send(self, client: Any, pane: str) -> None:
        window = self._window(pane)
        with self._changed:
            samples, last, n_steps = self._samples, self._last, self._n_steps
            curves = {} if pane in (RUN, IMAGES) else self._curves.of(pane)
        if pane == IMAGES and samples:
            grid = picture(samples[0], self._options.display_ncols)
            client.image(grid, win=window, opts=picture_opts(f"{self._title}: {samples[1]}", grid))
        elif pane == RUN and last:
            client._send({**text_pane(self._title, self._lines(last, n_steps)), "win": window})
        elif curves:
            client._send({**curves_pane(f"{self._title}: {pane}, over its steps", curves), "win": window})

    def _lines(self, last: Values, n_steps: int) -> dict[str, str]:
        rate = last.values.get(RATE)
        return {
            "stage": last.stage,
            "step": f"{last.step:,} of {n_steps:,}",
            "epoch": str(last.epoch),
            "images per second": f"{rate:.3g}" if rate else "-",
            "updated": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
            "run folder": printable(str(self._run_dir)),
        }

    def _report(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        server = f"{self._options.display_server}:{self._options.display_port}"
        self._warn(
            f"the visdom server {server} cannot be reached ({error}); training continues without the dashboard. "
            f"Start it with: bash scripts/dashboard.sh -port {self._options.display_port}"
        )
