"""Hyperband: successive halving at every trade of many candidates for long trainings.

Reference: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization, JMLR 18, 2018, arXiv:1603.06560, algorithm 1.

    s_max = floor(log_eta(R / r)),   B = (s_max + 1) R
    for s = s_max, ..., 0:   successive halving of n members from floor(R eta^-s) to R
        "jmlr"   n = ceil((B / R) eta^s / (s + 1))          81, 34, 15, 8, 5 for R = 81: the text's formula
        "table"  n = floor((B / R) / (s + 1)) eta^s         81, 27,  9, 6, 5: the paper's table, and the code of BOHB's authors

B is what a bracket would cost if members began anew at each rung; here they go on.  Defaults eta = 3 and r = 1 (the paper).
"""

from jaxnas.ask_tell.halving import Proposer, Rung, brackets
from jaxnas.ask_tell.trial import levels
from jaxnas.base import AskTell
from jaxnas.checks import checked
from jaxnas.kinds import Positive
from jaxnas.spaces._space import Space

FORMS = ("jmlr", "table")


@checked
def hyperband_plan(R: Positive, eta: Positive = 3, form: str = "jmlr", r: Positive = 1) -> list[list[Rung]]:
    """The brackets of one pass, s = s_max first.

    Raises:
        ValueError: for another form, or what `levels` refuses.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}: choose one of {', '.join(FORMS)}")
    budgets, plan = levels(R, r, eta), []
    for s in reversed(range(len(budgets))):
        n = -(-len(budgets) * eta**s // (s + 1)) if form == "jmlr" else len(budgets) // (s + 1) * eta**s
        plan.append([Rung(n // eta**i, budgets[len(budgets) - 1 - s + i]) for i in range(s + 1)])
    return plan


@checked
def hyperband(
    space: Space,
    R: Positive,
    eta: Positive = 3,
    form: str = "jmlr",
    batch: Positive = 1,
    propose: Proposer | None = None,
    r: Positive = 1,
) -> AskTell:
    """Hyperband, pass after pass; it asks for `Trial`s in as many slots as the first bracket has members.

    Args:
        space: where to search.
        R: the largest budget, in the evaluator's units.
        eta: one in eta is kept, default 3.
        form: of n, "jmlr" (default) or "table".
        batch: B, trials a step, default 1.
        propose: where new members come from, default uniform draws.
        r: the smallest budget, default 1.

    Raises:
        ValueError: for another form, budgets that are not 1 <= r <= R, an eta below 2, or a batch outside [1, n].
    """
    return brackets(space, hyperband_plan(R, eta, form, r), batch, propose)
