"""The options of everything a person watches while a model trains; RunLog reads them."""

from __future__ import annotations

from dataclasses import dataclass

from util.needs import Need, given, positive
from util.schema import flag

GROUP = "display"
DASHBOARD = positive("display_id")
FOLLOWED = Need("--display_id above 0, or --tensorboard", lambda o: o.display_id > 0 or o.tensorboard)
PICTURES = Need("--html, or --display_id above 0", lambda o: o.html or o.display_id > 0)


@dataclass(frozen=True)
class DisplayOptions:
    """All `*_freq` count training images seen, not steps, so a change of batch size changes no picture's spacing."""

    print_freq: int = flag(100, "a row in loss_log.csv every so many images", group=GROUP, low=1)
    log_seconds: float = flag(60.0, "and at least one every so many seconds", group=GROUP, low=0)
    html: bool = flag(True, "write the training report web/index.html", group=GROUP)
    update_html_freq: int = flag(
        1000, "sample images into the report every so many images", group=GROUP, low=1, needs=given("html")
    )
    tensorboard: bool = flag(False, "event files for TensorBoard in the run folder's tensorboard/", group=GROUP)
    display_id: int = flag(-1, "visdom dashboard: first part of its window ids; 0 or less is off", group=GROUP, low=-1)
    display_server: str = flag("http://localhost", "visdom server", group=GROUP, needs=DASHBOARD)
    display_port: int = flag(8097, "visdom server's port", group=GROUP, low=1, high=65535, needs=DASHBOARD)
    display_env: str | None = flag(
        None,
        "visdom environment, which several runs may share; none: the run's name",
        group=GROUP,
        needs=DASHBOARD,
    )
    display_freq: int = flag(
        400, "sample images to the dashboard and TensorBoard every so many images", group=GROUP, low=1, needs=FOLLOWED
    )
    display_ncols: int = flag(
        4, "images side by side, in the dashboard and the report", group=GROUP, low=1, needs=PICTURES
    )
