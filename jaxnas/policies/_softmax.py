"""The continuous relaxation of DARTS: gates = softmax(alpha), row by row.

Reference: Liu, Simonyan and Yang, DARTS, ICLR 2019, arXiv:1806.09055, eq. 2.
"""

from jaxnas.checks import checked
from jaxnas.kinds import NonNegativeNumber
from jaxnas.policies.policy import Policy, close, normal_logits, softmax_rows
from jaxnas.spaces._space import Space
from jaxnas.trees import take


@checked
def softmax(space: Space, scale: NonNegativeNumber = 1e-3) -> Policy:
    """One logit a gate, drawn from scale * N(0, 1); theta has the gates' structure, and one action is the gates.

    The architecture is derived from the softmax (`space.derive`), not from the raw logits: across edges they rank
    differently.

    Raises:
        ValueError: for a space with an edge of a single operation.
    """

    def sample(key, theta, t):
        del key, t  # deterministic
        return take(softmax_rows(theta), None)

    derive = lambda theta: space.derive(softmax_rows(theta))
    return Policy(normal_logits(space, scale), sample, lambda action: action, None, derive, False, close)
