"""What an architecture costs on a device, and losses and rewards that know it."""

from jaxnas.hardware._cost import (
    Cost,
    Form,
    Priced,
    absolute_reward,
    additive,
    check_priced,
    cost,
    dual_ascent,
    expected,
    fbnet_product,
    is_additive,
    lagrangian,
    power_reward,
    priced,
    proxyless_product,
    relative_excess,
)

__all__ = [
    "Cost",
    "Form",
    "Priced",
    "absolute_reward",
    "additive",
    "check_priced",
    "cost",
    "dual_ascent",
    "expected",
    "fbnet_product",
    "is_additive",
    "lagrangian",
    "power_reward",
    "priced",
    "proxyless_product",
    "relative_excess",
]
