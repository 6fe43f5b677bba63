"""A client's simulated stream as a Parquet file: a deployed node can then send what a simulated client would."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.data.stream import ClientStreams


def export_stream(streams: ClientStreams, client: int, rounds: int, path: Path) -> None:
    """Write the batches of rounds 0 to `rounds` - 1, in order, as lossless PNG in the columns img and label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches = [streams.batch(client, round) for round in range(rounds)]
    images = [_png(image) for batch in batches for image in batch.images]
    labels = np.concatenate([batch.labels for batch in batches])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": images, "label": labels}), path)


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()
