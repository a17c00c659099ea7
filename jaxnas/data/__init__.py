"""Labelled examples on the device, drawn by key: `load` or `split` -> Dataset -> `batches` -> Feed."""

from jaxnas.data.augment import AUGMENTS, Augment, augment_named, chain, colour_jitter, crop, cutout, flip, identity, resized_crop
from jaxnas.data.dataset import Dataset, Split, split
from jaxnas.data.errors import DataError
from jaxnas.data.feed import batches, calibration, count, epochs, fixed, training
from jaxnas.data.inputs import Inputs
from jaxnas.data.pixels import Pixels
from jaxnas.data.pretext import Pretext, colourisation, jigsaw, pretext_feed, rotation
from jaxnas.data.sources import SOURCES, load
from jaxnas.data.streamed import Streamed, streamed
from jaxnas.data.target import Target

__all__ = [
    "AUGMENTS",
    "SOURCES",
    "Augment",
    "DataError",
    "Dataset",
    "Inputs",
    "Pixels",
    "Pretext",
    "Split",
    "Streamed",
    "Target",
    "augment_named",
    "batches",
    "calibration",
    "chain",
    "colour_jitter",
    "colourisation",
    "count",
    "crop",
    "cutout",
    "epochs",
    "fixed",
    "flip",
    "identity",
    "jigsaw",
    "load",
    "pretext_feed",
    "resized_crop",
    "rotation",
    "split",
    "streamed",
    "training",
]
