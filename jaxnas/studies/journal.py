"""The storage of a study: one text file of JSON lines that only grows, written under a lock of the operating system.

The lock is fcntl's, on the file itself: it ends with its process, however that ends, and NFS version 4 honours it (Linux maps it
to a lock of the file server).  SQLite's documentation advises against network file systems, and a lock file made with O_EXCL
outlives the process that was killed.

A line that a kill or a full disk has cut short is nobody's: readers stop before it, and the next writer removes it.  Several
lines may be written at once; what is left of them after a kill is the first few, so that every line must make sense without those
behind it.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Generator, Sequence
from typing import Any

from jaxnas.driver.files import parse_json
from jaxnas.driver.lock import fcntl

Event = dict[str, Any]


class EventLog:
    """One process's view of the file: it reads what was appended since it last looked."""

    def __init__(self, path: pathlib.Path) -> None:
        """Raises OSError on a system without such locks."""
        if fcntl is None:
            raise OSError("a study needs the file locks of a POSIX system, and this one has none: run it on Linux or macOS")
        self.path = path
        self._offset = self._lines = 0  # of what was read

    @contextlib.contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Holds the file: nobody else writes.  Not to be entered again by who holds it."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)  # releases it

    def read(self) -> list[Event]:
        """The lines that are new.

        Raises:
            ValueError: for a line that cannot be read, or a file that has become shorter; names the line.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(0, os.SEEK_END)
                if file.tell() < self._offset:
                    raise ValueError(f"{self.path} has become shorter: somebody has changed it; put back what was there")
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            if self._offset:
                raise ValueError(f"{self.path} is gone: put it back, or begin in another directory") from None
            return []
        whole = content[: content.rfind(b"\n") + 1]
        events = []
        for line in whole.splitlines(keepends=True):
            try:
                event = parse_json(line)
            except ValueError as error:
                raise self.damaged(self._lines + 1, str(error).replace(" from line 1 on", "")) from None
            if not isinstance(event, dict):
                raise self.damaged(self._lines + 1, "it is no table of names and values")
            self._lines += 1
            self._offset += len(line)
            events.append(event)
        return events

    def damaged(self, line: int, why: str) -> ValueError:
        """The error for a line that makes no sense."""
        return ValueError(f"line {line} of {self.path} is damaged ({why}): put back a copy, or begin in another directory")

    @property
    def lines(self) -> int:
        """How many were read."""
        return self._lines

    def append(self, events: Sequence[Event], *, sync: bool) -> None:
        """Writes lines behind what was read last; the lock is held, and everything was read.

        Args:
            events: what to write.
            sync: return only once the disk has them.

        Raises:
            OSError: where they cannot be written, in one line; nothing is written then.
        """
        content = "".join(json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n" for event in events).encode()
        file = os.open(self.path, os.O_RDWR)
        try:
            os.ftruncate(file, self._offset)  # a line cut short
            try:
                written = 0
                while written < len(content):
                    written += os.pwrite(file, content[written:], self._offset + written)
                if sync:
                    os.fsync(file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, self._offset)
                message = f"cannot write {self.path} ({error.strerror}): nothing was noted; make room, then try again"
                raise OSError(error.errno, message) from None
        finally:
            os.close(file)
