"""HEIC, HEIF and AVIF files without personal metadata."""

from __future__ import annotations

from fruits_assets.photos.heif.repacking import repacked
from fruits_assets.photos.personal_metadata import icc


def stripped(content: bytes) -> bytes:
    """The picture that a HEIC, HEIF or AVIF file shows, in a file of its own.

    Exif, XMP, thumbnails, depth and gain maps, other pictures, videos and names have no place in it; colour
    profiles are neutralised. Compressed pixels stay as they are, byte for byte, and a file that this
    function has written comes out unchanged.

    Raises:
        UnusableImageError: the file cannot be taken apart safely; the message says why.
    """
    return repacked(content, icc.neutral)
