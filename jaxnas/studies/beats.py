"""Signs of life: a file for each trial that somebody has, whose time of change is the last one, by the clock of the file server."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Collection, Generator


class Beats:
    """The files of a study's `beats` directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def touch(self, id: int | str) -> float:
        """Gives a sign, and returns when: the file server's now."""
        path = self._directory / str(id)
        try:
            os.utime(path)
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return path.stat().st_mtime

    def last(self, id: int) -> float:
        """When the last sign was given; now, where somebody has cleaned up: its time begins anew."""
        try:
            return (self._directory / str(id)).stat().st_mtime
        except FileNotFoundError:
            return self.touch(id)

    def end(self, id: int) -> None:
        """There will be no more of them."""
        with contextlib.suppress(OSError):
            (self._directory / str(id)).unlink()


@contextlib.contextmanager
def every(seconds: float, beat: Callable[[int], None], ids: int | Collection[int]) -> Generator[None, None, None]:
    """Calls `beat` in a thread, for one trial or for those that a collection such as a dict holds at the time."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(seconds):
            for id in [*ids] if isinstance(ids, Collection) else [ids]:
                with contextlib.suppress(OSError):
                    beat(id)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
