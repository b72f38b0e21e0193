"""Conversion of images to sRGB by their ICC profile. Colour shows the phase; wide gamut read as sRGB is too pale."""

import io

from PIL import Image, ImageCms

from woundray.data.notes import Notes

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
_INTEROPERABILITY, _INDEX = 0xA005, 1
_EXIF, _COLOUR_SPACE, _UNCALIBRATED = 0x8769, 0xA001, 65535
_ADOBE_RGB = "R03"


def to_srgb(image: Image.Image, file: str, notes: Notes) -> Image.Image:
    """Convert an 8-bit RGB, L or CMYK image to sRGB by its embedded profile (ICC.1); without one only the mode changes.

    Adds a note for a profile that can not be used, and for an image without profile that is known not to be sRGB.
    """
    embedded = image.info.get("icc_profile")
    if not embedded:
        _note_unprofiled(image, file, notes)
        return image.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        name = ImageCms.getProfileDescription(profile).strip() or "without a name"
        space = profile.profile.xcolor_space
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        notes.add("colour profile is damaged, colours are taken as sRGB", file)
        return image.convert("RGB")
    if space != _SPACES.get(image.mode):
        notes.add(f"colour profile {name} is not for {image.mode} pictures, colours are taken as sRGB", file)
        return image.convert("RGB")
    if "srgb" in name.casefold():
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError as error:
        notes.add(f"colour profile {name} can not be converted ({error}), colours are taken as sRGB", file)
        return image.convert("RGB")
    assert converted is not None  # None only with `inPlace`
    notes.add(f"colours converted from {name} to sRGB", file)
    return converted


def _note_unprofiled(image: Image.Image, file: str, notes: Notes) -> None:
    """Add notes for an image without profile whose mode or metadata say that it is not sRGB."""
    if image.mode == "CMYK":
        notes.add("CMYK without a colour profile, its colours are approximate", file)
        return
    nclx = image.info.get("nclx_profile") or {}
    if nclx.get("color_primaries", 2) not in (1, 2):  # ITU-T H.273: 1 as sRGB, 2 unspecified
        notes.add("colours of a wide gamut without a profile, taken as sRGB", file)
    exif = image.getexif()
    uncalibrated = exif.get_ifd(_EXIF).get(_COLOUR_SPACE) == _UNCALIBRATED
    if exif.get_ifd(_INTEROPERABILITY).get(_INDEX) == _ADOBE_RGB or uncalibrated:
        notes.add("colours are not of sRGB by the camera's note and have no profile, taken as sRGB", file)
