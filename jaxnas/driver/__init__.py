"""Running a search: the only loop, and, with `jaxnas.app`, the only side effects."""

from jaxnas.driver.checkpoint import CheckpointError, Checkpoints
from jaxnas.driver.errors import Diverged, Stopped
from jaxnas.driver.journal import Journal
from jaxnas.driver.loop import Result, compiler_options, run

__all__ = ["CheckpointError", "Checkpoints", "Diverged", "Journal", "Result", "Stopped", "compiler_options", "run"]
