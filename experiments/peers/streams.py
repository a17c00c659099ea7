"""Data bigger than memory: the peak memory of a stream by the size of its data, and images a second against Grain's DataLoader.

    python experiments/peers/streams.py memory        0.3 GB and 3 GB of images in a memory map
    python experiments/peers/streams.py images        JPEGs of 500 x 375, decoded to 224 x 224 and fed (needs grain)

memory: 600 batches of 64 images of 96 x 96, each size a process of its own, its high-water mark with the data mapped.  images: the
same 256 files in memory (58 kB each), the same decoder, batches of 64, put on the device; turns of 256 images, interleaved, medians
of three.  jaxnas is its driver with a step that sums the batch; Grain is its bare loader, by threads and by worker processes.

Two cores of an AMD EPYC (AVX-512), jax 0.10.2, grain 0.2.18, Pillow 13.0; a minute.

Results: docs/results.md#data-bigger-than-memory
"""

import io
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxnas as nas
from jaxnas import data
from jaxnas.data.images import cover

BATCH, FILES, STEPS, TURNS = 64, 256, 600, 3
SIDE = 96  # of the images in a memory map


def summing() -> nas.Strategy:
    """A strategy that looks at every pixel, and does nothing else."""
    step = lambda key, state, batch: (state + jnp.mean(batch.train[0]) + jnp.sum(batch.train[1]), ())
    return nas.Strategy(lambda key, given=None: jnp.zeros(()), step, lambda state: state)


def peak(gigabytes: float) -> None:
    """Prints the high-water mark, in MB, of a process that feeds so much."""
    n = int(gigabytes * 1e9) // (SIDE * SIDE * 3)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x.npy")
        x, rng = np.lib.format.open_memmap(path, "w+", np.uint8, (n, SIDE, SIDE, 3)), np.random.default_rng(0)
        for i in range(0, n, 1000):
            x[i : i + 1000] = rng.integers(0, 256, x[i : i + 1000].shape, np.uint8)
        del x
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the writing
        outside = data.streamed((np.load(path, mmap_mode="r"), np.arange(n, dtype=np.int32) % 10), jax.random.key(0))
        started = time.perf_counter()
        nas.run(jax.random.key(1), summing(), steps=STEPS, data=data.training(outside, BATCH))
        seconds = time.perf_counter() - started
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    print(f"{gigabytes} GB: peak {int(status['VmHWM'].split()[0]) / 1e3:.0f} MB, {seconds:.0f} s", flush=True)


def jpegs() -> list[bytes]:
    """Smooth noise: files of a photograph's size."""
    rng, files = np.random.default_rng(0), []
    for _ in range(FILES):
        small, file = rng.integers(0, 256, (46, 62, 3), np.uint8), io.BytesIO()
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
        files.append(file.getvalue())
    return files


class Rows:
    """(file, label) by index."""

    def __init__(self, files: list[bytes]):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return self.files[i], int(i) % 10


def fed(files: list[bytes]):
    outside = data.streamed(Rows(files), jax.random.key(0), names=tuple("abcdefghij"), workers=2)
    feed, strategy = data.training(outside, BATCH), summing()
    return lambda: nas.run(jax.random.key(1), strategy, steps=FILES // BATCH, data=feed)


def grain_loader(files: list[bytes], processes: int):
    import absl.flags
    import grain.python as grain

    absl.flags.FLAGS(sys.argv[:1])

    class Decode(grain.MapTransform):
        def map(self, row):
            return cover(row[0], (224, 224, 3)), np.int32(row[1])

    def turn():
        sampler = grain.IndexSampler(FILES, grain.NoSharding(), shuffle=True, num_epochs=1, seed=0)
        loader = grain.DataLoader(
            data_source=Rows(files),
            sampler=sampler,
            operations=[Decode(), grain.Batch(BATCH)],
            worker_count=processes,
            read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * BATCH),
        )
        for x, y in loader:
            jax.block_until_ready(jax.device_put((x, y)))

    return turn


def images() -> None:
    files = jpegs()
    decode = lambda: [cover(file, (224, 224, 3)) for file in files]
    contestants = {"decoder alone, one thread": decode, "jaxnas, 2 threads": fed(files)}
    contestants |= {f"Grain, {n} processes": grain_loader(files, n) for n in (0, 2)}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(TURNS + 1):
        for name, work in contestants.items():
            started = time.perf_counter()
            work()
            if turn:  # the first warms up
                rates[name].append(FILES / (time.perf_counter() - started))
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.0f} images/s ({min(found):.0f} to {max(found):.0f})", flush=True)


def main(what: str = "memory", gigabytes: str | None = None) -> None:
    if what == "images":
        images()
    elif gigabytes is not None:
        peak(float(gigabytes))
    else:
        for size in ("0.3", "3"):
            subprocess.run([sys.executable, __file__, "memory", size], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
