from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secli.errors import InputError
from secli.sources.contract import RawImages, Request
from secli.sources.registry import read_source


def picture(path: Path, size: tuple[int, int] = (6, 5), mode: str = "L", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(pixels).convert("RGBA").convert(mode).save(path)
    return path


def read(directory: Path | None, size: int | None = None) -> RawImages:
    return read_source("folder", Request(directory, image_size=size))


def test_classes_and_pictures_in_the_order_of_their_names(tmp_path: Path) -> None:
    for seed, name in enumerate(
        ("dog/b.png", "dog/a.png", "cat/z.png", "cat/.hidden/y.png", "dog/notes.txt.png")
    ):
        picture(tmp_path / name, seed=seed)
    (tmp_path / "dog" / "README.txt").write_text("no picture")
    (tmp_path / ".git").mkdir()
    raw = read(tmp_path)
    assert raw.classes == ("cat", "dog")
    assert raw.labels.tolist() == [0, 1, 1, 1]
    assert raw.images.shape == (4, 5, 6)
    assert raw.parts == (("all", 4),)
    assert not raw.lossy
    np.testing.assert_array_equal(raw.images[1], np.asarray(Image.open(tmp_path / "dog" / "a.png")))
    again = read(tmp_path).info.digests
    assert again == raw.info.digests
    picture(tmp_path / "dog" / "a.png", seed=9)
    assert read(tmp_path).info.digests != again


def test_published_parts_are_kept(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        for index in range(count):
            picture(tmp_path / part / "a" / f"{index}.png")
            picture(tmp_path / part / "b" / f"{index}.png")
    raw = read(tmp_path)
    assert raw.parts == (("train", 6), ("val", 2), ("test", 4))
    assert raw.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1, 1]
    picture(tmp_path / "test" / "c" / "0.png")
    with pytest.raises(InputError, match="class folder 'c' is not in both"):
        read(tmp_path)


def test_classes_that_happen_to_be_called_train_and_test(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png")
    picture(tmp_path / "test" / "a.png")
    assert read(tmp_path).classes == ("test", "train")


def test_colour_makes_all_colour_and_jpeg_is_lossy(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "grey.png")
    picture(tmp_path / "a" / "colour.png", mode="RGB")
    raw = read(tmp_path)
    assert raw.images.shape == (2, 5, 6, 3)
    assert (raw.images[1][..., 0] == raw.images[1][..., 2]).all()
    assert not raw.lossy
    picture(tmp_path / "a" / "photo.jpg", mode="RGB").rename(tmp_path / "a" / "disguised.png")
    assert read(tmp_path).lossy


def test_transparent_is_black(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (2, 2), (200, 100, 50, 0)).save(tmp_path / "a" / "clear.png")
    assert read(tmp_path).images.max() == 0


def test_sizes_must_agree_unless_one_is_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png", size=(6, 5))
    picture(tmp_path / "a" / "2.png", size=(40, 30))
    with pytest.raises(InputError, match=r"2\.png: 40×30 pixels, but .*1\.png has 6×5; give --image-size PX"):
        read(tmp_path)
    assert read(tmp_path, size=8).images.shape == (2, 8, 8)


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    Image.fromarray(stripes).save(tmp_path / "a" / "stripes.png")
    assert np.abs(read(tmp_path, size=8).images[0].astype(int) - 128).max() < 20


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--source is missing"):
        read(None)
    with pytest.raises(InputError, match=r"nowhere: no such directory"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no class folders in it"):
        read(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"/a: no pictures in this class folder"):
        read(tmp_path)


@pytest.mark.parametrize("fault", ["text", "truncated", "empty"])
def test_bad_pictures_are_named(tmp_path: Path, fault: str) -> None:
    path = picture(tmp_path / "a" / "x.png", size=(50, 50))
    content = {"text": b"no picture", "truncated": path.read_bytes()[:1000], "empty": b""}[fault]
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a/x\.png: not a whole picture"):
        read(tmp_path)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png16(colour_type: int, channels: int) -> bytes:
    """Return a PNG of 4×4 pixels with 16 bits per channel, which Pillow cannot write in colour."""
    row = b"\0" + bytes(4 * 2 * channels)
    header = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(4 * row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


DEEP = {
    "grey.png": png16(0, 1),
    "grey-alpha.png": png16(4, 2),
    "colour.png": png16(2, 3),
    "colour-alpha.png": png16(6, 4),
    "colour.ppm": b"P6 4 4 65535\n" + bytes(4 * 4 * 6),
    "ten-bits.pgm": b"P5 4 4 1023\n" + bytes(4 * 4 * 2),
    "plain.ppm": b"P3 1 1 1023\n1023 0 512\n",
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(DEEP[name])
    with pytest.raises(InputError, match=rf"{name}: more than 8 bits per channel \(.*\); convert it to 8"):
        read(tmp_path)


def test_the_reason_is_the_decoder_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "a" / "x.png", size=(60, 50))
    whole = path.read_bytes()
    cases = {
        whole[:1000]: "not a whole picture: .*truncated",
        b"no picture": "not a whole picture: no picture format that Pillow knows",
        b"": "not a whole picture: the file is empty",
        whole[:-300] + bytes(300): "not a whole picture: .*",
    }
    for content, reason in cases.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"x\.png: {reason}; replace it or remove it"):
            read(tmp_path)
    path.write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # 3000 pixels: Pillow only warns
    assert read(tmp_path).images.shape == (1, 50, 60)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"x\.png: larger than Pillow opens \(3 000 pixels, at most 2 000\)"):
        read(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"x\.png: cannot be read: No such file"):
        read(tmp_path)


def test_other_kinds_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    red = Image.new("RGB", (4, 2), (255, 0, 0))
    red.convert("CMYK").save(folder / "1-cmyk.tif")
    palette = red.convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    palette.save(folder / "2-clear.png", transparency=palette.getpixel((0, 0)))
    frames = [Image.new("RGB", (4, 2), colour) for colour in ((0, 255, 0), (0, 0, 255))]
    frames[0].save(folder / "3-moving.gif", save_all=True, append_images=frames[1:])
    turned = Image.new("RGB", (2, 4), (0, 0, 0))
    turned.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be seen turned by 90° clockwise
    turned.save(folder / "4-turned.png", exif=exif)
    images = read(tmp_path).images
    assert images.shape == (4, 2, 4, 3)
    assert images[0, 0, 0].tolist() == [255, 0, 0]
    assert images[1].max() == 0
    assert images[2, 0, 0].tolist() == [0, 255, 0]
    assert images[3].sum() == images[3, 0, 3].sum() == 3 * 255
