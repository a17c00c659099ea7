"""What an architecture costs on a device, and losses that know it."""

from jaxnas.hardware._cost import (
    Cost,
    Form,
    cost,
    dual_ascent,
    expected,
    fbnet_product,
    lagrangian,
    proxyless_product,
    relative_excess,
)

__all__ = ["Cost", "Form", "cost", "dual_ascent", "expected", "fbnet_product", "lagrangian", "proxyless_product", "relative_excess"]
