"""One process a directory: a lock that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from quota.errors import StoreError

LOCK_FILE: Final = "lock"


class DirectoryLock:
    """Holds a directory until closed. The file stays behind and names the last holder; it locks nothing by itself."""

    def __init__(self, directory: Path) -> None:
        """Take the directory, which exists. Raises StoreError, naming directory and process, if it is taken."""
        try:
            self._fd = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{directory}: cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StoreError(f"{directory}: in use by another quotad, process {holder}") from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let others have the directory. Once is enough, twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
