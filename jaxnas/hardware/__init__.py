"""What an architecture costs on a device, and losses that know it."""

from jaxnas.hardware.cost import Cost, Form, cost, expected, fbnet_product, lagrangian, linear, proxyless_product, raised

__all__ = ["Cost", "Form", "cost", "expected", "fbnet_product", "lagrangian", "linear", "proxyless_product", "raised"]
