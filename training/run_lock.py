"""`run.lock`: only one training at a time uses a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from util.errors import UserError, warn

LOCK_NAME = "run.lock"
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the folder's lock within the block. The system releases it whenever the process ends, however it ends.

    It is a record lock (fcntl). DataLoader workers, which outlive a killed training by seconds, do not inherit it as
    they would a lock by flock. If the file system has no locks, a warning says so and the block runs without one.

    Raises:
        UserError: another process holds the lock; the message names it.
        OSError: the file cannot be written.
    """
    path = run_dir / LOCK_NAME
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                raise UserError(f"{run_dir} is in use by {_holder(file)}; stop it, or give another --name") from error
            warn(f"{run_dir}: cannot be locked ({error.strerror}); a second run in this folder would not be noticed")
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise UserError(f"{run_dir}: another training has just left it; start again")
        file.truncate(0)
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "started": started}, file)
        file.flush()
        yield


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        found = json.load(file)
        return f"process {found['pid']} on {found['host']} since {found['started']}"
    except (ValueError, KeyError, TypeError):  # it holds the lock but has not written its name yet
        return "another process"
