"""The live visdom dashboard: a window of curves per stage and one of labelled sample images.

A slow or unavailable server never delays training: a background thread sends only the newest content of each window.
Every content is complete (whole curves, not increments), so a server that is started late, or restarted, shows
everything.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import numpy as np

from options.display_options import DisplayOptions
from training.log.loss_log import VALIDATION, LossLog
from training.log.training_curves import use_log_scale
from util.errors import UserError

TIMEOUT_S = 5.0  # for one request to the server, in the background
RETRY_S = 30.0  # after a failure
CLOSE_S = 2.0  # longest wait for the last contents to be sent
MAX_POINTS = 500  # of a curve
CAPTION_PX = 50  # height of the caption below a picture

Send = Callable[[Any], Any]  # sends one window's content through a visdom client


def _connect(options: DisplayOptions) -> Any:
    """A visdom client that raises ConnectionError instead of blocking forever or printing tracebacks."""
    import visdom  # imported here: optional and slow

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
        env=options.display_env,
        use_incoming_socket=False,
        raise_exceptions=True,
    )


def require_visdom(options: DisplayOptions) -> None:
    """Raise UserError if the dashboard is enabled and visdom is not installed."""
    if options.display_id > 0 and importlib.util.find_spec("visdom") is None:
        raise UserError(
            f"--display_id {options.display_id} needs visdom; install it as described in requirements-dashboard.txt"
        )


class Dashboard:
    """Windows `ID-STAGE`, `ID-STAGE-validation` and `ID-images` of one run, ID being --display_id.

    Args:
        title: the run's name, shown above every window.
        warn: called once, from the background thread, when the server cannot be reached.
    Raises:
        UserError: visdom is not installed.
    """

    def __init__(self, options: DisplayOptions, title: str, warn: Callable[[str], None]) -> None:
        require_visdom(options)
        self._options, self._title, self._warn = options, title, warn
        self._changed = threading.Condition()
        self._latest: dict[str, Send] = {}
        self._pending: dict[str, Send] = {}
        self._closing = self._warned = False
        self._thread = threading.Thread(target=self._work, name="dashboard", daemon=True)
        self._thread.start()

    def curves(self, log: LossLog, stage: str) -> None:
        """Show all losses of `stage` so far in its window, and validation metrics in another."""
        names = log.names(stage)
        validated = [name for name in names if name.startswith(VALIDATION)]
        self._lines(log, stage, "", [name for name in names if name not in validated])
        self._lines(log, stage, "-validation", validated)

    def _lines(self, log: LossLog, stage: str, kind: str, names: list[str]) -> None:
        curves = {name: log.curve(stage, name, MAX_POINTS) for name in names}
        curves = {name: points for name, points in curves.items() if len(points[0])}
        if not curves:
            return
        longest = max(len(steps) for steps, _ in curves.values())
        x, y = np.full((2, longest, len(curves)), np.nan)  # visdom needs tables, so shorter curves end in NaN
        for index, (steps, values) in enumerate(curves.values()):
            x[: len(steps), index], y[: len(steps), index] = steps, values
        opts = {
            "title": f"{self._title}: {stage}{kind}",
            "legend": list(curves),
            "xlabel": "step",
            "ytype": "log" if use_log_scale(y[np.isfinite(y)]) else "linear",
            "width": 640,
            "height": 420,
            "markers": any(len(steps) == 1 for steps, _ in curves.values()),  # a line of one point cannot be seen
            "markersize": 6,
        }
        if len(curves) == 1:  # visdom needs a vector for a single line
            x, y = x[:, 0], y[:, 0]
        window = f"{self._options.display_id}-{stage}{kind}"
        self._post(window, lambda client: client.line(y, x, win=window, opts={**opts}))

    def images(self, grid: np.ndarray, caption: str) -> None:
        """Show a labelled grid, (3, H, W) uint8 from `labelled_grid`."""
        window = f"{self._options.display_id}-images"
        height, width = grid.shape[1:]
        opts = {"title": f"{self._title}: samples", "caption": caption, "width": width, "height": height + CAPTION_PX}
        self._post(window, lambda client: client.image(grid, win=window, opts={**opts}))

    def _post(self, window: str, send: Send) -> None:
        with self._changed:
            self._latest[window] = self._pending[window] = send
            self._changed.notify_all()

    def _work(self) -> None:
        client = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if not self._pending:
                    return
                windows, self._pending = self._pending, {}
            try:
                client = client or _connect(self._options)
                for send in windows.values():
                    send(client)
            except Exception as error:  # no error of the dashboard may stop training
                client = None
                self._report(error)
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing, RETRY_S):
                        return
                    self._pending = dict(self._latest)

    def _report(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        address = f"{self._options.display_server}:{self._options.display_port}"
        self._warn(
            f"the visdom server {address} cannot be reached ({error}); training continues without the dashboard. "
            f"Start it with: python -m visdom.server -port {self._options.display_port} -bind_local"
        )

    def close(self) -> None:
        """Send pending contents for at most CLOSE_S seconds, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)
