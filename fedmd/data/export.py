"""A simulated client's samples as a Parquet file: a deployed node can then do what that client would."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.data.stream import ClientStreams
from fedmd.types import ImageSet


def export_stream(streams: ClientStreams, client: int, rounds: int, path: Path) -> None:
    """Write the batches that `client` sends in rounds 0 to `rounds` - 1, in order."""
    batches = [streams.batch(client, round) for round in range(rounds)]
    images, labels = (np.concatenate([getattr(b, name) for b in batches]) for name in ("images", "labels"))
    _write(images, labels, path)


def export_samples(own: ImageSet, path: Path) -> None:
    """Write a client's data set of mode=update, in order."""
    _write(own.images, own.labels, path)


def _write(images: NDArray[np.uint8], labels: NDArray[np.int64], path: Path) -> None:
    """Lossless PNG and integers, in the columns img and label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": [_png(image) for image in images], "label": labels}), path)


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()
