"""Random search, the baseline that every algorithm has to beat.

Reference: Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019, arXiv:1902.07638.
Uniform over settings of the decisions, not over distinct networks; a candidate drawn twice is paid for twice.
On a space of n settings sorted from the best (i = 0), the best of N draws is the i-th with odds ((n-i)/n)^N - ((n-i-1)/n)^N.

Axes: B candidates asked for at once.
"""

import jax

from jaxnas.base import AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space


@checked
def random_search(space: Space, batch: Positive = 1) -> AskTell:
    """Asks for `batch` uniform draws a step and learns nothing.

    Args:
        space: where to draw from.
        batch: B, candidates a step, default 1.

    Raises:
        ValueError: for a batch below 1.
    """

    def init(key):
        del key  # nothing to draw
        return ()

    def ask(key, state):
        return state, jax.vmap(space.sample)(jax.random.split(key, batch))

    def tell(key, state, archs, scores):
        del key, archs, scores  # nothing to learn
        return state

    return AskTell(init, ask, tell)
