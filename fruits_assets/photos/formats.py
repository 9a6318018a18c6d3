"""Which files are photos, and how large one may be."""

import warnings

from PIL import Image

# Pillow's own definition of a decompression bomb. It only warns up to twice this size; `decode_rgb`
# refuses, and so its warning would say everything twice.
MAX_PIXELS = 89_478_485
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Pillow knows many more, some of which start other programs: a photo is one of these.
# JPEG includes the multi-picture files of phones (MPO, which is not openable by that name); GIF turns up
# under other formats' names.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


class UnusableImageError(ValueError):
    """The bytes are no image that features can be taken from; the message is the reason."""
