"""What of a file may be stored: the same picture, decodable, without personal metadata."""

from __future__ import annotations

import io

from PIL import Image

from fruits_assets.photos.colour import have_the_same_colours, profile_of
from fruits_assets.photos.decoding import Photo, decode, orientation
from fruits_assets.photos.formats import FORMATS, UnusableImageError, is_jpeg
from fruits_assets.photos.personal_metadata import strip_personal_metadata

_NOT_THE_SAME = "without its personal metadata it would not be the same picture"


def checked(content: bytes) -> tuple[Photo, bytes]:
    """A photo, and its file without personal metadata, which is known to be the same picture.

    Raises:
        UnusableImageError: it cannot be decoded, or not be stripped safely.
    """
    if is_jpeg(content):
        # Most of the time goes into decoding. What is stored of a JPEG are its own tables and scans, byte
        # for byte, and nothing lies between them: to decode both files would say the same twice.
        stored = strip_personal_metadata(content)
        photo = decode(stored)
        if stored != content and not _are_declared_alike(content, stored):
            raise UnusableImageError(_NOT_THE_SAME)
        return photo, stored
    photo = decode(content)
    stored = strip_personal_metadata(content)
    if stored != content and not decode(stored).shows_the_same_as(photo):
        raise UnusableImageError(_NOT_THE_SAME)
    return photo, stored


def _are_declared_alike(one: bytes, other: bytes) -> bool:
    """Whether the headers of two files say the same of their pictures: sizes, colours and orientation."""
    with (
        Image.open(io.BytesIO(one), formats=FORMATS) as first,
        Image.open(io.BytesIO(other), formats=FORMATS) as second,
    ):
        profiles = [profile_of(image.info.get("icc_profile")) for image in (first, second)]
        return (
            first.size == second.size
            and first.mode == second.mode
            and orientation(first) == orientation(second)
            and have_the_same_colours(*profiles)
        )
