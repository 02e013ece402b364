"""Shared memory of worker processes, /dev/shm on Linux: when it is full, that is said, and no folder is blamed."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from util.errors import UserError

PLACE = "shared memory (/dev/shm)"


def no_shared_memory(error: object, instead: str) -> UserError:
    """What to tell a user whose worker processes get no shared memory; `instead` is the option to do without them."""
    return UserError(
        f"{PLACE} is full or too small for worker processes ({error}); "
        f"enlarge it (docker run --shm-size=1g), or give {instead} to do without them"
    )


def rehearse(locks: int) -> None:
    """Make and drop so many locks: torch's loader, interrupted while it makes its own, would print a traceback.

    Raises: OSError.
    """
    made = [multiprocessing.Lock() for _ in range(locks)]
    del made


@contextmanager
def needs_shared_memory(instead: str) -> Iterator[None]:
    """For blocks that set up worker processes, whose locks lie in shared memory.

    Raises: UserError: it is full or read-only, or a process may not use it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EROFS, errno.EACCES) or error.filename is not None:
            raise
        raise no_shared_memory(error.strerror, instead) from error
