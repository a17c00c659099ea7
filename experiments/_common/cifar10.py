"""CIFAR-10 from a file, whole or halved to 16 x 16, and the accuracies of NAS-Bench-201's cells on it."""

import io

import jax
import numpy as np

from jaxnas import data, spaces

EXAMPLES, TESTED = 5_000, 4_000


def arrays(path):
    """-> (x, y), (x_test, y_test), images uint8 [N, 32, 32, 3], of an .npz.

    It holds uint8 images `x`, labels `y`, `x_test`, `y_test`, of which the first 5,000 are for training; or JPEG bytes
    (`train_jpeg`, `train_offset`, `train_label`, likewise `test_`), of which 5,000 and 4,000 are decoded, by Pillow.
    """
    with np.load(path) as file:
        held = dict(file)
    if "x" in held:
        return (held["x"][:EXAMPLES], held["y"][:EXAMPLES]), (held["x_test"], held["y_test"])
    from PIL import Image

    def decode(part, n):
        blob, at, y = held[f"{part}_jpeg"].tobytes(), held[f"{part}_offset"], held[f"{part}_label"]
        n = min(n, len(y))
        return np.stack([np.asarray(Image.open(io.BytesIO(blob[at[i] : at[i + 1]]))) for i in range(n)]), y[:n].astype(np.int32)

    return decode("train", EXAMPLES), decode("test", TESTED)


def halved(key, path) -> data.Dataset:
    """The images as 16 x 16, means of 2 x 2."""
    (x, y), test = arrays(path)
    halved = lambda x: x.reshape(len(x), 16, 2, 16, 2, 3).mean((2, 4)).astype(np.uint8)
    return data.split(key, halved(x), y, test=(halved(test[0]), test[1]), name="cifar10")


def halved_and_table(images, table):
    """-> (halved images, space, the table's test accuracy of each cell [15625] in percent, the key of the searches).

    The table is an .npz with `ops` [15625, 6] and `test_acc_200` [15625, D], CIFAR-10 first.
    """
    k_data, k_search = jax.random.split(jax.random.key(0))
    dataset, space = halved(k_data, images), spaces.nasbench201()
    with np.load(table) as file:
        order = np.ravel_multi_index(file["ops"].astype(int).T, (5,) * 6)
        truth = np.zeros(5**6)
        truth[order] = file["test_acc_200"][:, 0]
    return dataset, space, truth, k_search
