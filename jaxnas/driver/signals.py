"""SIGTERM and Ctrl-C, noted for the loop to see between chunks."""

import contextlib
import signal
import threading
from collections.abc import Generator


class Seen:
    """What has come so far."""

    number: int | None = None  # of the signal; None before there is one


@contextlib.contextmanager
def noted() -> Generator[Seen, None, None]:
    """Notes the first SIGTERM or Ctrl-C; a second Ctrl-C interrupts at once.  Outside the main thread nothing is noted."""
    seen = Seen()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return

    def note(number, frame):
        if seen.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.number = number

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for s, handler in before.items():
            signal.signal(s, signal.SIG_DFL if handler is None else handler)  # None: of `jax.distributed`, which Python cannot set
