"""Take personal metadata out of image files without touching a pixel.

**A file is packed anew from the parts that are known to be the picture.** Whatever is not one of them stays
behind: EXIF (with its GPS position), XMP, IPTC, comments, previews, further pictures, what follows the
picture and what lies in gaps. Compressed pixels are carried over byte for byte and are never encoded again,
and a file that cannot be taken apart safely is refused, so nothing of a photo is kept unseen. What a picture
needs to look right stays: its colour profile (without the text in it), transparency, resolution and, as the
only tag of an otherwise empty EXIF block, its orientation.

What is not looked for: data hidden where the picture itself has room, such as behind the last pixel inside
the compressed data of JPEG, WebP or LZW in TIFF, or in colours of a palette that no pixel has.
"""

from __future__ import annotations

from collections.abc import Callable

from fruits_assets.photos.formats import UnusableImageError, is_heif
from fruits_assets.photos.personal_metadata import bmp, gif, heif, jpeg, png, tiff, webp


def strip_personal_metadata(content: bytes) -> bytes:
    """The same picture without personal metadata; the same bytes where there was none.

    Args:
        content: an image file that `decode_rgb` accepts.

    Raises:
        UnusableImageError: the file is damaged, or has parts whose place in the picture is unknown.
    """
    stripped = _stripping_of(content)
    if stripped is None:
        raise UnusableImageError("no known kind of image: what is personal in it is unknown")
    try:
        return stripped(content)
    except (UnusableImageError, MemoryError):
        raise  # the second is a fault of the machine, not of the file
    except Exception as error:  # the parsers run into whatever the damage happens to hit
        raise UnusableImageError(f"its structure is damaged: {type(error).__name__}: {error}") from error


def _stripping_of(content: bytes) -> Callable[[bytes], bytes] | None:
    """What strips files that begin like this one; the magic numbers are those that Pillow goes by."""
    if content.startswith(b"\xff\xd8"):
        return jpeg.stripped
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return png.stripped
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return webp.stripped
    if content.startswith((b"GIF87a", b"GIF89a")):
        return gif.stripped
    if content.startswith(b"BM"):
        return bmp.stripped
    if content.startswith((b"II", b"MM")):
        return tiff.stripped
    if is_heif(content):
        return heif.stripped
    return None
