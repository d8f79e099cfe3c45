"""images.py: each kind of file becomes the RGB pixels it should, exactly."""

import os
import stat
import subprocess
import sys

import hostile
import numpy as np
import pytest
from hostile import ORIENTATION, UPRIGHT, over_white
from PIL import Image

import tlhelpers as tl

RNG = np.random.default_rng(0)
ONES = [*hostile.modes(RNG), *hostile.turned(RNG), *hostile.profiles(RNG)]


@pytest.fixture
def colours():
    """Noise of unequal sides, so that every turn and every flip shows."""
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


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


@pytest.mark.parametrize("case", ONES, ids=[f"{number} {case.name}" for number, case in enumerate(ONES)])
def test_every_way_to_store_a_photo_gives_its_pixels_or_is_refused(tmp_path, case, capfd):
    path = tmp_path / case.name
    path.write_bytes(case.data)
    try:
        read = tl.read_image(path)
    except ValueError as error:
        assert case.verdict != "good" and str(error).startswith(f"{path}: not a photo that can be read (")
    else:
        assert case.verdict != "bad" and read.dtype == np.uint8 and read.shape == case.expected.shape
        assert np.abs(read - case.expected.astype(float)).max() <= case.tolerance + 0.5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_profile_that_is_srgb_leaves_the_pixels_as_they_are(tmp_path, colours, kind):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(colours).save(tmp_path / "srgb", kind, icc_profile=profile, **options)
    assert np.array_equal(tl.read_image(tmp_path / "srgb"), colours)


@pytest.mark.parametrize("name", ["32 bits.tif", "unsigned 32 bits.tif", "float.tif", "float.pgm"])
def test_numbers_of_unknown_range_are_refused(tmp_path, name):
    (case,) = [case for case in ONES if case.name == name]
    (tmp_path / name).write_bytes(case.data)
    with pytest.raises(ValueError, match=rf"{name}: not a photo that can be read \(.*32-bit.*range"):
        tl.read_image(tmp_path / name)


OTHERS = hostile.others(RNG, hostile.picture(RNG))


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_photo_or_of_another_kind_is_not_even_tried(tmp_path, kind):
    (tmp_path / f"file.{kind}").write_bytes(OTHERS[kind])
    with pytest.raises(ValueError, match=rf"file\.{kind}: not a photo that can be read"):
        tl.read_image(tmp_path / f"file.{kind}")


def test_heic_is_named_and_the_way_out_too(tmp_path):
    (tmp_path / "IMG_0001.HEIC").write_bytes(OTHERS["heic"])
    with pytest.raises(ValueError, match=r"IMG_0001\.HEIC: .*HEIC.*JPEG"):
        tl.read_image(tmp_path / "IMG_0001.HEIC")


def test_bombs_are_refused_without_a_word_on_standard_error(tmp_path, capfd):
    for number, case in enumerate(hostile.bombs(RNG)):
        path = tmp_path / f"{number} {case.name}"
        path.write_bytes(case.data)
        try:
            read = tl.read_image(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: not a photo that can be read (")
        else:
            assert case.verdict != "bad", case.name
            assert case.expected is None or np.abs(read - case.expected.astype(float)).max() <= case.tolerance + 0.5
    printed, complaints = capfd.readouterr()
    assert (printed, hostile.without_libtiff(complaints)) == ("", "")


def test_one_wrong_byte_of_a_png_is_never_believed(tmp_path):
    """Each of its pieces has a checksum."""
    for name in ("palette.png", "deep.png"):
        data, image = hostile.whole_files(np.random.default_rng(0))[name]
        for at in range(0, len(data), 1 + len(data) // 400):
            wrong = bytearray(data)
            wrong[at] ^= 0x11
            (tmp_path / name).write_bytes(wrong)
            try:
                read = tl.read_image(tmp_path / name)
            except ValueError:
                continue
            assert np.array_equal(read, image), f"byte {at} of {len(data)} of {name}"


def test_too_many_pixels_are_refused_by_the_header(tmp_path):
    for name, pixels in (("grey.pgm", b"P5 8192 8193 255\n"), ("colour.ppm", b"P6 60000 60000 255\n")):
        (tmp_path / name).write_bytes(pixels)
        with pytest.raises(ValueError, match="bomb|67,108,864|67 million"):
            tl.read_image(tmp_path / name)


def test_pipes_sockets_and_devices_are_never_opened(tmp_path, colours):
    os.mkfifo(tmp_path / "pipe.png")
    os.mknod(tmp_path / "socket.png", stat.S_IFSOCK | 0o600)
    (tmp_path / "device.png").symlink_to("/dev/zero")
    pipe = os.open(tmp_path / "pipe.png", os.O_RDWR | os.O_NONBLOCK)  # with both ends open, reading would not wait …
    try:
        photo = hostile.saved(colours, "PNG")
        os.write(pipe, photo)
        for name in ("pipe.png", "socket.png", "device.png"):
            with pytest.raises(ValueError, match=rf"{name}: not a photo that can be read"), hostile.deadline(20):
                tl.read_image(tmp_path / name)
        assert os.read(pipe, 100_000) == photo  # … but take the photo out
    finally:
        os.close(pipe)


def test_a_link_to_a_photo_is_read_and_one_to_nowhere_is_missing(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "photo.png")
    (tmp_path / "link.png").symlink_to("photo.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    assert np.array_equal(tl.read_image(tmp_path / "link.png"), colours)
    with pytest.raises(FileNotFoundError, match=r"broken\.png"):
        tl.read_image(tmp_path / "broken.png")


def test_where_warnings_are_errors_photos_are_read_all_the_same(tmp_path):
    image = hostile.picture(RNG)
    odd = {
        "exif.jpg": hostile.saved(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", **hostile.LOSSY),
        "tags.tif": hostile.tiff(image, t65000=[1] * 70_000)[:-100_000],
        "large.png": hostile.png(8192, 8192, 1, 0, [bytes(1024)] * 8192),
    }
    for name, data in odd.items():
        (tmp_path / name).write_bytes(data)
    code = "import sys; from tlhelpers.images import read_image; [print(read_image(path).shape) for path in sys.argv[1:]]"
    command = [sys.executable, "-W", "error", "-c", code, *(tmp_path / name for name in odd)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("(24, 36, 3)\n(24, 36, 3)\n(8192, 8192, 3)\n", "")


def test_a_name_that_is_no_text_is_shown_in_one_line(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9\n\x1b[31m.png")
    path.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        tl.read_image(path)
    assert str(error.value).isprintable() and str(error.value).encode("utf-8")


# --- read_image, at_least -----------------------------------------------------------------------------------------


def large_jpeg(path, name, height, width, **options):
    """A real photo, as large as a camera makes it."""
    photo = Image.fromarray(tl.load_photo(name)).resize((width, height), Image.Resampling.BICUBIC)
    photo.save(path, quality=92, **options)
    return path


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket", "grass"])
@pytest.mark.parametrize("size", [64, 224])
def test_a_large_jpeg_decoded_at_a_part_of_its_size_looks_the_same(tmp_path, name, size, progressive):
    path = large_jpeg(tmp_path / "large.jpg", name, 2000, 3000, progressive=progressive)
    part, whole = tl.read_image(path, at_least=size), tl.read_image(path)
    assert whole.shape == (2000, 3000, 3)
    assert 2 * size <= part.shape[0] <= 1000 and part.dtype == np.uint8
    off = np.abs(tl.resize_image(part, size).astype(float) - tl.resize_image(whole, size))
    assert off.mean() < 2


SIDES = ((2000, 3000), (448, 3000), (447, 3000), (901, 900), (100, 100), (1, 5000), (1793, 1795))


@pytest.mark.parametrize(("height", "width"), SIDES)
@pytest.mark.parametrize("size", [1, 64, 224, 600])
def test_no_side_gets_below_twice_what_is_asked_for(tmp_path, height, width, size):
    Image.new("RGB", (width, height), (200, 100, 50)).save(tmp_path / "flat.jpg")
    part = tl.read_image(tmp_path / "flat.jpg", at_least=size)
    for side, of in zip(part.shape, (height, width)):
        assert side == of or side >= 2 * size
        assert side in {-(-of // by) for by in (1, 2, 4, 8)}
    assert np.abs(part - [200.0, 100, 50]).max() <= 3


def test_a_part_is_turned_converted_and_refused_like_the_whole(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    profile = hostile.rgb_profile(hostile.SRGB[:, [1, 2, 0]], 2.2)
    path = large_jpeg(tmp_path / "turned.jpg", "chelsea", 1600, 2400, exif=exif, icc_profile=profile)
    part, whole = tl.read_image(path, at_least=100), tl.read_image(path)
    assert whole.shape == (2400, 1600, 3) and part.shape == (300, 200, 3)
    assert np.abs(tl.resize_image(part, 100).astype(float) - tl.resize_image(whole, 100)).mean() < 2
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"turned\.jpg: not a photo that can be read"):
        tl.read_image(path, at_least=100)


def test_other_kinds_are_decoded_whole(tmp_path):
    photo = tl.load_photo("chelsea")
    Image.fromarray(photo).save(tmp_path / "cat.png")
    assert np.array_equal(tl.read_image(tmp_path / "cat.png", at_least=16), photo)


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
