"""What a run can end with, apart from bad input (ValueError) and files (OSError)."""


class Diverged(RuntimeError):
    """The loss of weights that all candidates share is not finite."""


class NoFiniteScore(RuntimeError):
    """The search has ended, and no candidate had a finite score: there is no answer."""


class Stopped(RuntimeError):
    """A signal asked the run to stop; everything up to then is saved where there is a directory."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number
