"""Labelled images on the device, drawn by key: `load` or `split` -> Dataset -> `batches` -> Feed."""

from jaxnas.data.augment import AUGMENTS, Augment, augment_named, chain, crop, cutout, flip, identity
from jaxnas.data.dataset import DataError, Dataset, Split, check, split
from jaxnas.data.feed import batches, calibration, epochs, fixed, training
from jaxnas.data.pretext import Pretext, colourisation, jigsaw, pretext_feed, rotation
from jaxnas.data.sources import SOURCES, load

__all__ = [
    "AUGMENTS",
    "SOURCES",
    "Augment",
    "DataError",
    "Dataset",
    "Pretext",
    "Split",
    "augment_named",
    "batches",
    "calibration",
    "chain",
    "check",
    "colourisation",
    "crop",
    "cutout",
    "epochs",
    "fixed",
    "flip",
    "identity",
    "jigsaw",
    "load",
    "pretext_feed",
    "rotation",
    "split",
    "training",
]
