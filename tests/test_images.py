"""images.py: each kind of file becomes the RGB pixels it should, exactly."""

import numpy as np
import pytest
from PIL import Image

import tlhelpers as tl

ORIENTATION = 0x0112  # the EXIF tag
# EXIF's eight values, as CIPA DC-008 defines them: what must be done to the stored pixels to see them upright.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


@pytest.fixture
def colours():
    """Noise of unequal sides, so that every turn and every flip shows."""
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def over_white(colour, alpha):
    """Transparency laid over white, as the formula has it."""
    part = np.asarray(alpha, dtype=float)[..., None] / 255
    return colour * part + 255 * (1 - part)


# --- read_image ---------------------------------------------------------------------------------------------------


def test_an_rgb_photo_comes_out_pixel_by_pixel(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    read = tl.read_image(tmp_path / "rgb.png")
    assert read.dtype == np.uint8
    assert np.array_equal(read, colours)


def test_a_path_may_be_a_text(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    assert np.array_equal(tl.read_image(str(tmp_path / "rgb.png")), colours)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_turned_photo_is_turned_upright(tmp_path, colours, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(colours).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(tl.read_image(tmp_path / "turned.png"), UPRIGHT[orientation](colours))


def test_a_turned_jpeg_is_turned_upright(tmp_path):
    half = np.zeros((32, 48, 3), np.uint8)
    half[:, :24] = 255  # white on the left
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn by 90° clockwise to see it upright: left becomes top
    Image.fromarray(half).save(tmp_path / "turned.jpg", exif=exif)
    read = tl.read_image(tmp_path / "turned.jpg")
    assert read.shape == (48, 32, 3)
    assert read[:20].min() > 240 and read[28:].max() < 15


def test_grey_becomes_three_equal_channels(tmp_path, colours):
    Image.fromarray(colours[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(tl.read_image(tmp_path / "grey.png"), np.repeat(colours[..., :1], 3, axis=2))


def test_one_bit_becomes_black_and_white(tmp_path, colours):
    bits = colours[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert Image.open(tmp_path / "bits.png").mode == "1"
    assert np.array_equal(tl.read_image(tmp_path / "bits.png"), np.repeat(255 * bits[..., None], 3, axis=2))


def test_transparent_colour_is_laid_over_white(tmp_path, colours):
    alpha = np.linspace(0, 255, colours[..., 0].size).reshape(colours.shape[:2]).astype(np.uint8)
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "rgba.png")
    read = tl.read_image(tmp_path / "rgba.png")
    assert read.shape == colours.shape
    assert np.abs(read - over_white(colours, alpha)).max() <= 1


def test_transparent_grey_is_laid_over_white(tmp_path, colours):
    grey, alpha = colours[..., 0], colours[..., 1]
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(tmp_path / "la.png")
    assert Image.open(tmp_path / "la.png").mode == "LA"
    wanted = over_white(np.repeat(grey[..., None], 3, axis=2), alpha)
    assert np.abs(tl.read_image(tmp_path / "la.png") - wanted).max() <= 1


def test_a_transparent_colour_of_a_palette_is_laid_over_white(tmp_path):
    file = Image.new("P", (3, 1))
    file.putpalette([200, 10, 20, 30, 40, 50, 60, 70, 80])
    file.putdata([0, 1, 2])
    file.save(tmp_path / "palette.png", transparency=bytes([0, 255, 128]))
    wanted = over_white(np.array([[[200, 10, 20], [30, 40, 50], [60, 70, 80]]]), [[0, 255, 128]])
    assert np.abs(tl.read_image(tmp_path / "palette.png") - wanted).max() <= 1


def test_a_palette_becomes_its_colours(tmp_path):
    file = Image.new("P", (2, 1))
    file.putpalette([200, 10, 20, 30, 40, 50])
    file.putdata([1, 0])
    file.save(tmp_path / "palette.png")
    assert tl.read_image(tmp_path / "palette.png").tolist() == [[[30, 40, 50], [200, 10, 20]]]


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_16_bits_are_divided_by_257(tmp_path, name):
    # Every multiple of 257 and its neighbours on both sides of rounding, to both ends.
    deep = np.array([[0, 128, 129, 256, 257, 258], [32767, 32768, 65278, 65406, 65407, 65535]], np.uint16)
    if name.endswith("pgm"):
        (tmp_path / name).write_bytes(b"P5 6 2 65535\n" + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(tmp_path / name)
    read = tl.read_image(tmp_path / name)
    assert read.dtype == np.uint8
    assert read[..., 0].tolist() == [[0, 0, 1, 1, 1, 1], [127, 128, 254, 254, 255, 255]]
    assert (read == read[..., :1]).all()


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "print.tif")
    assert (tl.read_image(tmp_path / "print.tif") == [255, 0, 0]).all()


@pytest.mark.parametrize("content", [b"", b"no photo at all", b"\x89PNG\r\n\x1a\n and then nothing"])
def test_a_file_that_is_no_photo_is_named(tmp_path, content):
    (tmp_path / "notes.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.jpg: not a photo that can be read"):
        tl.read_image(tmp_path / "notes.jpg")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "gif"])
def test_a_photo_that_breaks_off_is_named(tmp_path, kind):
    path = tmp_path / f"half.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"half\.{kind}: not a photo that can be read"):
        tl.read_image(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "nowhere.png", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            tl.read_image(path)
        assert str(path) in str(error.value)


# --- resize_image -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("size", [1, 3, 64, 224])
def test_a_resized_photo_has_the_size_asked_for(size, crop):
    resized = tl.resize_image(tl.load_photo("chelsea"), size, crop=crop)
    assert resized.shape == (size, size, 3) and resized.dtype == np.uint8


@pytest.mark.parametrize("crop", [False, True])
def test_a_photo_of_the_size_asked_for_stays_as_it_is(colours, crop):
    square = colours[:, :5]
    assert np.array_equal(tl.resize_image(square, 5, crop=crop), square)


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40)])
def test_crop_takes_the_middle_square(height, width):
    photo = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    middle = photo[10:30] if height > width else photo[:, 10:30]
    assert np.array_equal(tl.resize_image(photo, 20, crop=True), middle)
    # Shrinking averages across the cut, so the outermost pixels may know a little of what lies beyond it.
    shrunk, wanted = tl.resize_image(photo, 12, crop=True), tl.resize_image(middle, 12)
    assert np.abs(shrunk.astype(int) - wanted)[1:-1, 1:-1].max() <= 1


def test_without_crop_the_edges_stay():
    photo = np.zeros((20, 40, 3), np.uint8)
    photo[:, :4] = photo[:, -4:] = 255
    squeezed = tl.resize_image(photo, 20)
    assert (squeezed[:, 0] == 255).all() and (squeezed[:, -1] == 255).all()
    assert (tl.resize_image(photo, 20, crop=True) == 0).all()


def test_shrinking_averages():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255  # picking single pixels would give black or white
    shrunk = tl.resize_image(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), 8)
    assert np.abs(shrunk.astype(int) - 127.5).max() < 16


def test_resizing_leaves_the_photo_as_it_was(colours):
    before = colours.copy()
    tl.resize_image(colours, 3)
    assert np.array_equal(colours, before)


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_photo_of_8_bits_is_refused(photo):
    with pytest.raises(ValueError, match="expected .height, width, 3. and uint8"):
        tl.resize_image(photo, 4)


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_is_refused(colours, size):
    with pytest.raises(ValueError, match=f"size is {size}"):
        tl.resize_image(colours, size)
