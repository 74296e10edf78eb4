"""Image modes and formats through every reader: the same pixels as timm's dataset."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from rib.data.sheet import _thumbnail
from rib.data.transform import Transform, augmentation, read_image
from rib.errors import RibError
from tests.data.trees import picture

SIDE = 24
HALF = (0.5, 0.5, 0.5)
WHOLE = Transform(SIDE, 1.0, "bicubic", HALF, HALF)
BACKENDS = ["torchvision", "pil"]
RGB = np.asarray(picture(0, SIDE, SIDE))
GREY = RGB[..., 0]
DEEP = GREY.astype(np.uint16) * 256 + RGB[..., 1]
"""Sixteen bits, of which a person sees the upper eight."""

Case = tuple[bytes, np.ndarray | None]
"""A file, and its pixels (H, W, 3) where they follow from what was put in without any decoder."""


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def saved(image: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def of(mode: str, values: np.ndarray, format: str, **options) -> bytes:
    size = values.shape[1], values.shape[0]
    return saved(Image.frombytes(mode, size, np.ascontiguousarray(values).tobytes()), format, **options)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, bits: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG written by hand: PIL writes no 16-bit colour and no gamma."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def deep(*channels: np.ndarray) -> np.ndarray:
    return np.stack([c.astype(np.uint16) * 256 + 77 for c in channels], axis=-1)


def palette(format: str, **options) -> Case:
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.frombytes("P", (SIDE, SIDE), GREY.tobytes())
    image.putpalette(colours.tobytes())
    return saved(image, format, **options), colours[GREY]


def palette_with_alpha() -> Case:
    content, colours = palette("PNG")
    image = Image.open(io.BytesIO(content))
    image.putalpha(Image.fromarray(RGB[..., 1]))
    assert image.mode == "PA"
    return saved(image, "TIFF"), colours


def ink() -> tuple[np.ndarray, np.ndarray]:
    """CMYK and its colours: what cyan, magenta, yellow and black leave of white."""
    cmyk = np.concatenate([RGB, (RGB[..., :1] // 2)], axis=2)
    left = 255 - cmyk.astype(float)
    return cmyk, np.rint(left[..., :3] * left[..., 3:] / 255)


def ycck() -> bytes:
    """A JPEG whose Adobe marker says that its four channels are YCC and black."""
    content = bytearray(saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


def turned(format: str) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    return saved(Image.fromarray(RGB), format, exif=tags)


def frames(format: str, **options) -> bytes:
    others = [Image.fromarray(255 - RGB)]
    return saved(Image.fromarray(RGB), format, save_all=True, append_images=others, **options)


def rgb(format: str, **options) -> Callable[[], Case]:
    return lambda: (saved(Image.fromarray(RGB), format, **options), None)


ALPHA = RGB[..., 1:2]
CASES: dict[str, Callable[[], Case]] = {
    "1": lambda: (saved(Image.fromarray(GREY > 127), "PNG"), grey(255 * (GREY > 127))),
    "L": lambda: (of("L", GREY, "PNG"), grey(GREY)),
    "LA": lambda: (of("LA", RGB[..., :2], "PNG"), grey(GREY)),
    "P": lambda: palette("PNG"),
    "P with one transparent colour": lambda: palette("PNG", transparency=7),
    "P with an alpha for each colour": lambda: palette("PNG", transparency=bytes(range(256))),
    "PA": palette_with_alpha,
    "RGB": lambda: (of("RGB", RGB, "PNG"), RGB),
    "RGB with one transparent colour": lambda: (saved(Image.fromarray(RGB), "PNG", transparency=(1, 2, 3)), RGB),
    "RGBA": lambda: (of("RGBA", np.dstack([RGB, ALPHA]), "PNG"), RGB),
    "RGBX in a TIFF": lambda: (of("RGBX", np.dstack([RGB, ALPHA]), "TIFF"), RGB),
    "CMYK": lambda: (of("CMYK", ink()[0], "TIFF"), ink()[1]),
    "YCbCr": lambda: (saved(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), None),
    "LAB": lambda: (of("LAB", RGB, "TIFF"), None),
    "16-bit grey": lambda: (png(DEEP[..., None], 16, 0), grey(DEEP >> 8)),
    "16-bit grey, one transparent": lambda: (png(DEEP[..., None], 16, 0, chunk(b"tRNS", b"\0\1")), grey(DEEP >> 8)),
    "16-bit grey with alpha": lambda: (png(deep(GREY, RGB[..., 1]), 16, 4), grey(GREY)),
    "16-bit RGB": lambda: (png(deep(*RGB.transpose(2, 0, 1)), 16, 2), RGB),
    "16-bit RGBA": lambda: (png(deep(*RGB.transpose(2, 0, 1), GREY), 16, 6), RGB),
    "I;16 in a TIFF": lambda: (of("I;16", DEEP.astype("<u2"), "TIFF"), grey(DEEP >> 8)),
    "I;16B in a TIFF": lambda: (of("I;16B", DEEP.astype(">u2"), "TIFF"), grey(DEEP >> 8)),
    "I of a PGM": lambda: (b"P5 %d %d 65535\n" % (SIDE, SIDE) + DEEP.astype(">u2").tobytes(), grey(DEEP >> 8)),
    "gamma": lambda: (png(RGB, 8, 2, chunk(b"gAMA", struct.pack(">I", 100_000))), RGB),
    "a colour profile": lambda: (saved(Image.fromarray(RGB), "PNG", icc_profile=b"any profile"), RGB),
    "JPEG": rgb("JPEG"),
    "JPEG, progressive": rgb("JPEG", progressive=True),
    "JPEG, 4:2:2": rgb("JPEG", subsampling=1),
    "JPEG, RGB inside": rgb("JPEG", keep_rgb=True),
    "JPEG, restart markers": rgb("JPEG", restart_marker_rows=1),
    "JPEG, grey": lambda: (of("L", GREY, "JPEG"), None),
    "JPEG, CMYK": lambda: (of("CMYK", ink()[0], "JPEG"), None),
    "JPEG, CMYK without Adobe's mark": lambda: (of("CMYK", ink()[0], "JPEG").replace(b"Adobe", b"Other"), None),
    "JPEG, YCCK": lambda: (ycck(), None),
    "JPEG, turned by a tag": lambda: (turned("JPEG"), None),
    "PNG, turned by a tag": lambda: (turned("PNG"), RGB),
    "MPO": lambda: (frames("MPO"), None),
    "WebP": lambda: (saved(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "WebP, animated": lambda: (frames("WEBP", lossless=True), RGB),
    "APNG": lambda: (frames("PNG"), RGB),
    "GIF": lambda: palette("GIF"),
    "GIF, animated": lambda: (frames("GIF"), None),
    "BMP": lambda: (saved(Image.fromarray(RGB), "BMP"), RGB),
}


def by_timm(folder: Path) -> np.ndarray:
    """Return what `timm.data.ImageDataset` hands to its transform."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, about palettes with alpha
        return np.asarray(timm.data.ImageDataset(str(folder))[0][0])


@pytest.mark.parametrize("name", ["picture.JPEG", "picture.png"])
@pytest.mark.parametrize("case", CASES)
def test_every_reader_sees_what_timms_dataset_sees_or_all_its_16_bits(tmp_path, case, name):
    content, known = CASES[case]()
    file = tmp_path / "class" / name
    file.parent.mkdir()
    file.write_bytes(content)
    theirs = by_timm(tmp_path)
    if Image.open(io.BytesIO(content)).mode.startswith("I"):
        assert (theirs == 255).all(), "PIL's white square; else rib need do nothing of its own"
        theirs = known
    expected = theirs if known is None else known
    assert np.array_equal(theirs, expected)
    assert expected.std() > 10
    seen = torch.from_numpy(expected.astype(np.uint8)).permute(2, 0, 1)

    plain = tmp_path / "plain.png"
    Image.fromarray(expected.astype(np.uint8)).save(plain)
    for backend in BACKENDS:
        assert torch.equal(read_image(file, WHOLE, backend), seen), backend
        read = augmentation("random_resized_crop", WHOLE, backend)
        torch.manual_seed(1)
        changed = read(file, 0, False)
        torch.manual_seed(1)
        assert torch.equal(changed, read(plain, 0, False)), backend
    assert np.array_equal(np.asarray(_thumbnail(file)), np.asarray(_thumbnail(plain)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_16_bit_picture_is_no_white_square(tmp_path, backend):
    """Pillow clips at 255, so that a model would see nothing and score at chance."""
    file = tmp_path / "deep.png"
    file.write_bytes(CASES["16-bit grey"]()[0])
    image = read_image(file, WHOLE, backend)
    assert image.float().std() > 10
    file.write_bytes(of("L", (DEEP >> 8).astype(np.uint8), "PNG"))
    assert torch.equal(image, read_image(file, WHOLE, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_of_no_known_range_are_refused_by_name(tmp_path, mode, backend):
    file = tmp_path / "wide.png"
    file.write_bytes(saved(Image.fromarray(DEEP.astype("i4" if mode == "I" else "f4")), "TIFF"))
    with pytest.raises(RibError, match=rf"wide\.png cannot be read as an image \(its values are of mode {mode}, 32"):
        read_image(file, WHOLE, backend)


def test_the_table_knows_all_modes_that_a_file_of_pil_can_have():
    in_memory_only = {
        "La",
        "RGBa",
        "RGBX",
        "HSV",
        "I;16L",
        "I;16N",
    }  # PIL writes them into no file that it reads as such
    seen = {Image.open(io.BytesIO(case()[0])).mode for case in CASES.values()} | {"I", "F"}
    assert seen | in_memory_only == set(Image.MODES) | {"I;16", "I;16B"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 90)])
def test_the_thinnest_pictures_are_read(tmp_path, shape, backend):
    file = tmp_path / "thin.png"
    picture(0, *shape).save(file)
    assert read_image(file, WHOLE, backend).shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("content", "border"),
    [(png(np.zeros((4, 0, 3)), 8, 2), 0), (png(np.zeros((0, 4, 3)), 8, 2), 0), (png(np.zeros((4, 3, 3)), 8, 2), 2)],
    ids=["no width", "no height", "nothing within the frame"],
)
def test_a_picture_of_no_size_is_named(tmp_path, content, border, backend):
    file = tmp_path / "nothing.png"
    file.write_bytes(content)
    with pytest.raises(RibError, match=r"nothing\.png cannot be read as an image"):
        read_image(file, WHOLE, backend, border=border)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize("kind", ["one bit", "half", "half, then zeros"])
def test_a_damaged_png_is_never_read(tmp_path, kind, level, backend):
    """Its checksums tell, so that there is nothing to look at twice."""
    file = tmp_path / "damaged.png"
    content = bytearray(saved(picture(1, 200, 200), "PNG", compress_level=level))
    middle = len(content) // 2
    if kind == "one bit":
        content[middle] ^= 16
    else:
        content[middle:] = bytes(0 if kind == "half" else middle)
    file.write_bytes(content)
    with pytest.raises(RibError, match=r"damaged\.png cannot be read as an image"):
        read_image(file, WHOLE, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cameras_two_pictures_that_stop_half_way_are_not_read(tmp_path, backend):
    file = tmp_path / "two.jpg"
    others = [picture(2, 400, 400)]
    content = saved(picture(1, 400, 400), "MPO", save_all=True, append_images=others)
    file.write_bytes(content[: len(content) // 3].ljust(len(content), b"\0"))
    with pytest.raises(RibError, match=r"two\.jpg cannot be read as an image \(it is truncated\)"):
        read_image(file, WHOLE, backend)
