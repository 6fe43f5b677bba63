"""One encoded image (PNG, JPEG, ...) to an array, and back."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError

Samples = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [N, C, H, W] and their labels [N]

GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")


def decode_image(
    encoded: bytes | Path | None, size: tuple[int, int] | None, *, key: str, place: str
) -> NDArray[np.uint8]:
    """uint8 [C, H, W], C = 1 for grey and 3 for colour; transparency is dropped.

    `size` is (height, width), reached by bilinear interpolation without keeping the aspect; None leaves the
    image as it is. Raises ConfigError, which begins with `key` and says `place`.
    """
    from PIL import Image

    if not encoded:
        raise ConfigError(f"{key}: {place} has no image bytes.")
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            if image.mode not in GREY_MODES + COLOUR_MODES:
                raise ConfigError(f"{key}: {place} has unsupported pixels (mode {image.mode}).")
            plain = image.convert("L" if image.mode in GREY_MODES else "RGB")
            if size is not None:
                plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(plain)
    except ConfigError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged bytes
        raise ConfigError(f"{key}: the image in {place} cannot be decoded.") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """The lossless PNG of uint8 [C, H, W], C = 1 or 3."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(encoded, "PNG")
    return encoded.getvalue()


def described(image: NDArray[np.uint8]) -> str:
    """`28x28 grey`, width first."""
    channels, height, width = image.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"
