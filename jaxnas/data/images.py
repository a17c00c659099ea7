"""Folders of images, a folder a class:  FOLDER/CLASS/*.png,  or  FOLDER/train/CLASS/*.png  with test and valid beside it.

The rule for their size: the median of all heights and widths, made smaller, if need be, to 64 pixels on the longer side.  Every
image is turned as its EXIF data say, resized to that size with antialiasing, and laid on white where it is transparent.  They are
grey only if all are.

Axes: H height, W width, C channels.
"""

import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxnas.data.errors import DataError
from jaxnas.data.raw import Ask, Raw, no_columns

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
PARTS = {"train": ("train", "training"), "valid": ("val", "valid", "validation"), "test": ("test", "testing")}
LONGEST = 64  # pixels on the longer side, unless asked
SPOILT = 0.01  # share of images that may be unreadable
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")


class Files(NamedTuple):
    """The images of one part."""

    paths: list[pathlib.Path]
    classes: list[str]  # of each


def is_folder(spec: str) -> bool:
    """Whether it is a folder that no other source knows."""
    folder = pathlib.Path(spec).expanduser()
    known = ("dataset_dict.json", "state.json")
    return bool(spec) and folder.is_dir() and not any((folder / name).is_file() for name in known)


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    shown = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    return sorted(shown, key=lambda p: p.name)


def list_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """All images in a folder and below it, sorted; hidden files are not looked at."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        found += [pathlib.Path(root, n) for n in names if n.lower().endswith(ENDINGS) and not n.startswith(".")]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def list_files(folder: pathlib.Path) -> dict[str, Files]:
    """{part: its files}.

    Raises:
        DataError: for a folder without class folders that hold images.
    """
    top, folders = folder, _folders(folder)
    while len(folders) == 1 and not _direct(folder) and _folders(folders[0]):  # as archives unpack
        folder, folders = folders[0], _folders(folders[0])
    named = {part: [p for p in folders if p.name.lower() in names] for part, names in PARTS.items()}
    places = {"train": folder} if not named["train"] else {part: paths[0] for part, paths in named.items() if paths}
    parts = {}
    for part, place in places.items():
        files = Files([], [])
        for of_class in _folders(place):
            images = list_images(of_class)
            files.paths.extend(images)
            files.classes.extend([of_class.name] * len(images))
        if files.paths:
            parts[part] = files
    if "train" not in parts:
        loose = "its images are in no folder" if _direct(folder) else f"it has no images ({', '.join(ENDINGS)})"
        raise DataError(f"{top}: {loose}: give a folder that holds a folder of images for each class")
    return parts


def _direct(folder: pathlib.Path) -> bool:
    return any(p.suffix.lower() in ENDINGS and p.is_file() for p in folder.iterdir())


def read_folder(spec: str, ask: Ask) -> Raw:
    """The images of class folders."""
    no_columns(ask, spec)
    folder = pathlib.Path(spec).expanduser()
    parts = list_files(folder)
    chosen = {}
    for part, files in parts.items():
        at = ask.pick(part, len(files.paths))
        chosen[part] = Files([files.paths[i] for i in at], [files.classes[i] for i in at])
    arrays, notes = decode({part: files.paths for part, files in chosen.items()}, ask.size, spec)
    held = {part: (x, np.asarray([chosen[part].classes[i] for i in at], str)) for part, (x, at) in arrays.items()}
    everything = {part: np.asarray(files.classes, str) for part, files in parts.items()}
    return Raw(held, everything, layout="NHWC", notes=notes, files=True)


def decode(
    parts: Mapping[str, Sequence[Any]], size: int | None, name: str
) -> tuple[dict[str, tuple[np.ndarray, list[int]]], tuple[str, ...]]:
    """({part: (uint8[n, H, W, C], which of its images they are)}, notes): all of one shape.

    Args:
        parts: {part: files, as paths or as binary streams}.
        size: the longer side, in pixels; default: by the rule.
        name: what messages call the data.

    Raises:
        DataError: where more than 1 % of the images cannot be read, for a size below 1, or for more than the machine's memory.
    """
    if size is not None and size < 1:
        raise DataError(f"images need a size of at least 1 pixel, not {size}")
    sources = [(part, i, source) for part, of in parts.items() for i, source in enumerate(of)]
    with ThreadPoolExecutor() as pool:
        heads = list(pool.map(lambda s: _head(s[2]), sources))
        shape = _shape([h for h in heads if h is not None], size, name)
        _require_memory(len(sources), shape, name)
        pixels = list(pool.map(lambda s, h: None if h is None else _pixels(s[2], shape), sources, heads))
    bad = [_called(source) for (_, _, source), x in zip(sources, pixels, strict=True) if x is None]
    if len(bad) > SPOILT * len(sources):
        raise DataError(f"{name}: {len(bad)} of {len(sources)} images cannot be read ({', '.join(bad[:3])}): repair or delete them")
    notes = _notes([h for h in heads if h is not None], shape)
    if bad:
        notes = (*notes, f"x: {len(bad)} of {len(sources)} images cannot be read and were left out: {', '.join(bad[:10])}")
    found = {}
    for part in parts:
        kept = [(i, x) for (of, i, _), x in zip(sources, pixels, strict=True) if of == part and x is not None]
        found[part] = np.stack([x for _, x in kept]), [i for i, _ in kept]
    return found, notes


def _require_memory(count: int, shape: tuple[int, int, int], name: str) -> None:
    """Raises DataError for images that would not fit in the memory of this machine, which holds them twice while they are read."""
    if not hasattr(os, "sysconf"):
        return
    there, wanted = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 2 * count * math.prod(shape)
    if wanted > there:
        raise DataError(
            f"{name}: {count:,} images of {shape[0]} x {shape[1]} want {wanted / 1e9:.3g} GB of memory, and there are "
            f"{there / 1e9:.3g}: say a smaller size, or read them while it searches (--stream, data.streamed)"
        )


def _called(source: Any) -> str:
    return source.name if isinstance(source, pathlib.Path) else str(getattr(source, "name", "an image"))


class _Head(NamedTuple):
    height: int  # after it is turned
    width: int
    grey: bool
    clear: bool  # it may be transparent


def _open(source: Any) -> "Image":
    from PIL import Image

    if not isinstance(source, pathlib.Path):
        source.seek(0)
    return Image.open(source)


def _head(source: Any) -> _Head | None:
    """What a file says of its image, or None where it cannot be read."""
    try:
        with _open(source) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            width, height = image.size[::-1] if turned else image.size
            return _Head(height, width, image.mode in GREY, _transparent(image))
    except Exception:  # a damaged file fails in many ways: OSError, SyntaxError, ValueError, DecompressionBombError, ...
        return None


def _transparent(image: "Image") -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _shape(heads: Sequence[_Head], size: int | None, name: str) -> tuple[int, int, int]:
    """(H, W, C) by the rule."""
    if not heads:
        raise DataError(f"{name}: none of its images can be read: check the files")
    height, width = (float(np.median([h[axis] for h in heads])) for axis in (0, 1))
    longest = max(height, width)
    share = (min(longest, LONGEST) if size is None else size) / longest
    return max(1, round(height * share)), max(1, round(width * share)), 1 if all(h.grey for h in heads) else 3


def _notes(heads: Sequence[_Head], shape: tuple[int, int, int]) -> tuple[str, ...]:
    H, W, C = shape
    sizes = {h[:2] for h in heads}
    notes = [f"x: {len(heads)} images of {H} x {W}, {'grey' if C == 1 else 'in colour'}"]
    if sizes != {(H, W)}:
        (least, most) = (f"{a} x {b}" for a, b in (min(sizes), max(sizes)))
        were = f"{least}" if len(sizes) == 1 else f"{least} to {most}"
        squeezed = any(abs(h * W - w * H) > max(h, w) for h, w in sizes)
        notes.append(f"x: they were {were} and were resized (say size for another){', some out of proportion' * squeezed}")
    if any(h.clear for h in heads):
        notes.append("x: what is transparent was laid on white")
    return tuple(notes)


def read_image(source: Any, shape: Sequence[int], covered: bool = False) -> np.ndarray:
    """uint8[H, W, C] of a file, resized; `covered`: as `cover` does, else each side for itself.

    Raises:
        DataError: for one that cannot be read.
    """
    x = _pixels(source, shape, covered)
    if x is None:
        raise DataError(f"{source} cannot be read as an image: check the file")
    return x


def _pixels(source: Any, shape: Sequence[int], covered: bool = False) -> np.ndarray | None:
    from PIL import Image

    height, width, channels = shape
    try:
        if covered:
            return cover(source, shape)
        with _open(source) as opened:
            image = _coloured(opened, channels)
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)  # its filter grows with the reduction
            return np.asarray(image, np.uint8).reshape(height, width, channels)
    except Exception:  # as `_head`
        return None


def _coloured(opened: "Image", channels: int) -> "Image":
    """Turned as its EXIF data say, on white where it is transparent, grey or in colour."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if _transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def cover(source: "pathlib.Path | bytes | np.ndarray", shape: Sequence[int]) -> np.ndarray:
    """uint8[H, W, C]: the middle of an image, resized in proportion until it covers the shape.

    A JPEG of more than twice the size is decoded at a half, a quarter or an eighth of it, which takes a fraction of the time.

    Args:
        source: a file, its bytes, or its pixels uint8[H', W', C].
        shape: (H, W, C).

    Raises:
        Exception: of many kinds, for what cannot be read.
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    if isinstance(source, np.ndarray):
        opened = Image.fromarray(source[..., 0] if source.shape[-1] == 1 else source)
    else:
        opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    with opened:
        opened.draft(None, (max(height, width),) * 2)
        image = _coloured(opened, channels)
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(height, width, channels)
