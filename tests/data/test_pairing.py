"""Tests of matching LR images to HR images by their names."""

import unicodedata

import numpy as np
import pytest

from esrgan.data import Folders, find_pairs, load_pair
from esrgan.errors import DatasetError
from tests.helpers.image_pairs import problem_texts, random_image, write_image

NAMES = {  # HR name and LR names at ×4, without suffix
    "DIV2K": ("{}", ["{}x4"]),
    "DIV2K mild": ("{}", ["{}x4m"]),
    "DIV2K difficult": ("{}", ["{}x4d"]),
    "DIV2K wild": ("{}", ["{}x4w1", "{}x4w2", "{}x4w3", "{}x4w4"]),
    "underscore": ("{}", ["{}_x4"]),
    "LR": ("{}", ["{}_LR4"]),
    "bicubic": ("{}", ["{}_bicLRx4"]),
    "DRealSR": ("{}_x1", ["{}_x4"]),
    "RealSR": ("{}_HR", ["{}_LR4"]),
    "SelfExSR": ("{}_SRF_4_HR", ["{}_SRF_4_LR"]),
}
STEMS = ("0001", "img_002", "DSC_x4", "ü")


@pytest.fixture
def touch(tmp_path):
    """Return a function that creates empty images and returns their folder, since pairing looks at names only."""

    def create(folder, *names):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(tmp_path / folder)

    return create


def names(pairs, root):
    return [tuple(str(path.relative_to(root)) for path in (pair.high, pair.low)) for pair in pairs]


def refusal(spec, scale=4):
    with pytest.raises(DatasetError) as error:
        find_pairs([spec], "train", scale, "nowhere")
    (text,) = problem_texts(error)
    return text


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("subfolder", ["", "cats/"])
def test_published_names_are_matched(touch, tmp_path, kind, subfolder):
    high, lows = NAMES[kind]
    hr = touch("hr", *(f"{subfolder}{high.format(stem)}.png" for stem in STEMS))
    lr = touch("lr", *(f"{subfolder}{low.format(stem)}.jpg" for stem in STEMS for low in lows))
    expected = {
        (f"hr/{subfolder}{high.format(stem)}.png", f"lr/{subfolder}{low.format(stem)}.jpg")
        for stem in STEMS
        for low in lows
    }
    found = names(find_pairs([(hr, lr)], "train", 4, tmp_path), tmp_path)
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize("kind", [kind for kind in NAMES if "x4" in NAMES[kind][1][0] or "4" in NAMES[kind][1][0]])
def test_lr_images_of_another_scale_are_never_paired(touch, kind):
    high, lows = NAMES[kind]
    hr = touch("hr", *(f"{high.format(stem)}.png" for stem in STEMS))
    lr = touch("lr", *(f"{low.format(stem)}.png" for stem in STEMS for low in lows))
    assert "their names are those of ×4; name the folder for ×2, or set scale_factor to 4" in refusal((hr, lr), 2)


def test_same_names_in_two_classes_do_not_clash(touch, tmp_path):
    hr = touch("hr", "cats/1.png", "dogs/1.png", "dogs/2.png")
    lr = touch("lr", "cats/1x4.png", "dogs/1x4.png", "dogs/2x4.png")
    assert names(find_pairs([(hr, lr)], "train", 4, tmp_path), tmp_path) == [
        ("hr/cats/1.png", "lr/cats/1x4.png"),
        ("hr/dogs/1.png", "lr/dogs/1x4.png"),
        ("hr/dogs/2.png", "lr/dogs/2x4.png"),
    ]
    (tmp_path / "lr/cats/1x4.png").rename(tmp_path / "lr/dogs/1_x4.png")
    assert "1 HR image without partner (cats/1.png) and 1 LR image without partner (dogs/1_x4.png)" in refusal((hr, lr))


def test_folders_around_all_images_of_a_side_are_ignored(touch, tmp_path, messages):
    hr = touch("hr", "DIV2K_train_HR/0001.png", "DIV2K_train_HR/0002.png")
    lr = touch("lr", *(f"X{scale}/000{i}x{scale}.png" for scale in (2, 3, 4) for i in (1, 2)))
    assert names(find_pairs([(hr, lr)], "train", 4, tmp_path), tmp_path) == [
        ("hr/DIV2K_train_HR/0001.png", "lr/X4/0001x4.png"),
        ("hr/DIV2K_train_HR/0002.png", "lr/X4/0002x4.png"),
    ]
    assert "2 images; left out: 4 other-scale images (first: " in messages[0]


def test_lr_folder_may_be_in_the_hr_folder_and_the_reverse(touch, tmp_path, monkeypatch):
    outer, inner = touch("a", "1.png"), touch("a/small", "1x4.png")
    assert names(find_pairs([(outer, inner)], "train", 4, tmp_path), tmp_path) == [("a/1.png", "a/small/1x4.png")]
    monkeypatch.chdir(tmp_path)  # one path is absolute, the other is not, or leads through a link
    (tmp_path / "link").symlink_to(tmp_path / "a/small")
    for low in ("a/small", "link", "a/../a/small"):
        assert [pair.high.name for pair in find_pairs([(outer, low)], "train", 4, tmp_path)] == ["1.png"]
    outer, inner = touch("b", "1x4.png"), touch("b/large", "1.png")
    assert names(find_pairs([(inner, outer)], "train", 4, tmp_path), tmp_path) == [("b/large/1.png", "b/1x4.png")]


SELFEX = [f"img_00{i}_SRF_4_{kind}.png" for i in (1, 2) for kind in ("HR", "LR", "bicubic", "nearest", "SRCNN", "A+")]


@pytest.mark.parametrize("spec", [lambda folder: folder, lambda folder: (folder, folder)])
def test_selfexsr_folder_has_all_versions_in_one_place(touch, tmp_path, messages, spec):
    folder = touch("image_SRF_4", *SELFEX)
    assert names(find_pairs([spec(folder)], "val", 4, tmp_path), tmp_path) == [
        (f"image_SRF_4/img_00{i}_SRF_4_HR.png", f"image_SRF_4/img_00{i}_SRF_4_LR.png") for i in (1, 2)
    ]
    assert "2 images; left out: 8 other versions (first: " in messages[0]
    assert "their names are those of ×4" in refusal(spec(folder), 2)
    (tmp_path / "image_SRF_4/img_002_SRF_4_LR.png").unlink()
    assert "1 image without partner (img_002_SRF_4_HR.png)" in refusal(spec(folder))


def test_selfexsr_root_holds_all_scales(touch, tmp_path):
    for scale in (2, 3, 4):
        root = touch("Set5", *(f"image_SRF_{scale}/{name.replace('_4_', f'_{scale}_')}" for name in SELFEX))
    for scale in (2, 4):
        assert names(find_pairs([root], "val", scale, tmp_path), tmp_path / f"Set5/image_SRF_{scale}") == [
            (f"img_00{i}_SRF_{scale}_HR.png", f"img_00{i}_SRF_{scale}_LR.png") for i in (1, 2)
        ]


@pytest.mark.parametrize(
    ("high", "low"), [("Canon_{}_HR", "Canon_{}_LR4"), ("{}_x1", "{}_x4"), ("train_HR/{}_x1", "train_LR/{}_x4")]
)
def test_pairs_in_one_folder_are_found(touch, tmp_path, high, low):
    folder = touch("photos", *(f"{name.format(i)}.png" for i in (1, 2) for name in (high, low)))
    expected = [tuple(f"photos/{name.format(i)}.png" for name in (high, low)) for i in (1, 2)]
    assert names(find_pairs([folder], "train", 4, tmp_path), tmp_path) == expected
    assert names(find_pairs([(folder, folder)], "train", 4, tmp_path), tmp_path) == expected
    touch("photos", "other.png")
    assert "1 image without partner (other.png)" in refusal(folder)


def test_edsr_benchmark_is_found_in_its_layout(touch, tmp_path):
    stems = ("baby", "bird")
    root = touch("Set5", *(f"HR/{stem}.png" for stem in stems))
    touch("Set5", *(f"LR_bicubic/X{scale}/{stem}x{scale}.png" for scale in (2, 3, 4) for stem in stems))
    expected = [(f"Set5/HR/{stem}.png", f"Set5/LR_bicubic/X4/{stem}x4.png") for stem in stems]
    for low in ("LR_bicubic/X4", "LR_bicubic"):
        pair = (str(tmp_path / "Set5/HR"), str(tmp_path / "Set5" / low))
        assert names(find_pairs([pair], "val", 4, tmp_path), tmp_path) == expected
    assert names(find_pairs([root], "val", 4, tmp_path), tmp_path) == expected


@pytest.mark.parametrize(
    "files",
    [
        ["1.png", "2.png", "1x4.png"],
        ["1.png", "1_x2.png", "3.png"],
        ["HR/1.png", "LR/1.png"],
        ["GTmod12/1.png", "LRbicx4/1.png", "LRbicx2/1.png"],
        ["photos/1.png", "photos_LR_x4/1.png"],
        ["DIV2K_train_HR/1.png", "DIV2K_train_LR_unknown/X4/1x4.png"],
    ],
)
def test_lr_images_are_never_taken_for_hr_images(touch, files):
    text = refusal(touch("photos", *files))
    assert "expected HR images only" in text
    assert 'give both folders, as {"hr": …, "lr": …} or HR=LR' in text


@pytest.mark.parametrize(
    ("cut", "whole", "words"),
    [
        ("hr", "lr", "the HR images are cut into sub-images (_s001) and the others are not"),
        ("lr", "hr", "the LR images are cut into sub-images (_s001) and the others are not"),
    ],
)
def test_sub_images_against_whole_images_are_one_line(touch, cut, whole, words):
    suffix = {"hr": "", "lr": "x4"}
    folders = {
        cut: touch(cut, *(f"{i:04}{suffix[cut]}_s{part:03}.png" for i in range(40) for part in range(1, 26))),
        whole: touch(whole, *(f"{i:04}{suffix[whole]}.png" for i in range(40))),
    }
    text = refusal((folders["hr"], folders["lr"]))
    assert words in text
    assert "1,000 " in text
    assert len(text) < 600


def test_composed_and_decomposed_names_match(touch, tmp_path):
    hr = touch("hr", unicodedata.normalize("NFD", "café.png"))
    lr = touch("lr", unicodedata.normalize("NFC", "caféx4.png"))
    assert len(find_pairs([(hr, lr)], "train", 4, tmp_path)) == 1


def test_templates_describe_other_names(touch, tmp_path):
    hr = touch("hr", "a/1_gt.png", "2_gt.png")
    lr = touch("lr", "a/small_1@4.png", "small_2@4.png")
    spec = Folders(hr, lr, "small_{stem}@{scale}", "{stem}_gt")
    assert len(find_pairs([spec], "train", 4, tmp_path)) == 2
    text = 'lr_template "small_{stem}@{scale}" and hr_template "{stem}_gt" (HR=LR=small_{stem}@{scale}={stem}_gt)'
    assert f"correct {text}, which fit none of them" in refusal(spec, 2)
    assert '"lr_template", such as "{stem}_small"' in refusal((hr, lr))
    one = Folders(touch("one", "1.png", "1_small.png"), None, "{stem}_small")
    assert names(find_pairs([one], "train", 4, tmp_path), tmp_path) == [("one/1.png", "one/1_small.png")]


@pytest.mark.parametrize("template", ["small", "{stem}{stem}", "{stem}/x4", "{stem}_{name}", "{stem}}", "{stem}.png"])
def test_unusable_templates_are_refused(touch, template):
    folder = touch("hr", "1.png")
    assert "that contains {stem} once" in refusal(Folders(folder, folder, template))


def test_folder_given_twice_without_lr_images_says_so(touch):
    folder = touch("hr", "1.png", "2_s001.png")
    text = refusal((folder, folder))
    assert "2 images without partner (1.png, 2_s001.png); name it once to have LR images made" in text


def test_two_images_of_one_name_are_refused_if_they_have_lr_images(touch):
    hr, lr = touch("hr", "1.png", "1.jpg", "2.png"), touch("lr", "1.png", "2.png")
    assert "expected only one image of each name, got 1 more image of the same name (1.png)" in refusal((hr, lr))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["data.mdb", "lock.mdb", "meta_info.txt"], "got an LMDB of BasicSR; LMDB is not read"),
        (["train.zip"], "got only 1 .zip file (first: "),
        (["a.npy", "b.npy"], "got only 2 .npy files (first: "),
    ],
)
def test_folders_without_images_say_what_they_hold(touch, files, words):
    assert words in refusal(touch("folder", *files))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("meta_info.txt", "got a .txt file; lists of files are not read; name the folder of the images"),
        ("photos.zip", "got an archive; unpack it"),
        ("a.png", "got an image; name its folder"),
    ],
)
def test_files_are_refused_by_what_they_are(touch, tmp_path, name, words):
    touch("", name)
    assert words in refusal(str(tmp_path / name))


def test_home_folder_is_expanded(touch, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch("photos", "1.png")
    assert len(find_pairs(["~/photos", ("~/photos", "~/photos")[:1]], "train", 4, tmp_path)) == 2
    assert f"which stands for {tmp_path / 'none'}" in refusal("~/none")
    assert "separate folders by / instead of" in refusal("photos\\train")


def test_large_plain_folder_is_listed_quickly(touch, tmp_path):
    folder = touch("photos", *(f"{i:05}.png" for i in range(2000)))
    assert len(find_pairs([folder], "train", 4, tmp_path)) == 2000


def test_no_datasets_are_no_pairs(tmp_path):
    assert find_pairs([], "val", 4, tmp_path) == []


def test_cached_pairs_of_given_lr_images_are_compared(tmp_path, cache, messages):
    import cv2

    from esrgan import resize

    noise = np.random.default_rng(0).integers(0, 256, (5, 200, 200, 3), dtype=np.uint8)
    photos = [cv2.GaussianBlur(each, (0, 0), 3) for each in noise]
    photos = [cv2.normalize(each, None, 0, 255, cv2.NORM_MINMAX) for each in photos]

    def pairs(name, lows):
        for i, (low, high) in enumerate(zip(lows, photos, strict=True)):
            write_image(tmp_path / name / "hr" / f"{i}.png", high[4:196, 4:196])
            write_image(tmp_path / name / "lr" / f"{i}.png", resize.bicubic(low, 0.25))
        folders = (str(tmp_path / name / "hr"), str(tmp_path / name / "lr"))
        messages.clear()
        cache(find_pairs([folders], "train", 4, tmp_path))
        return [message for message in messages if "other LR images" in message]

    assert pairs("aligned", [photo[4:196, 4:196] for photo in photos]) == []
    (shifted,) = pairs("shifted", [photo[2:194, 5:197] for photo in photos])
    assert "shifted against their HR images by 2 px down and 1 px left, in pixels of the HR images" in shifted
    (unrelated,) = pairs("unrelated", [photo[4:196, 4:196] for photo in photos[::-1]])
    assert "do not seem to show what their HR images show" in unrelated


@pytest.fixture
def paint(tmp_path):
    """Return a function that writes images of given sizes into a folder, and returns it."""

    def create(sizes):
        for name, size in sizes.items():
            write_image(tmp_path / "photos" / f"{name}.png", random_image(size, size * 5 // 4))
        return str(tmp_path / "photos")

    return create


COUPLES = {  # names of an HR image and its LR image, of which a folder of HR images holds several
    "sub-images": ("DF2K_HR_sub/{}_s001", "DF2K_bicLRx4_sub/{}_s001"),
    "resolutions": ("Raw Data/high_res/{}", "Raw Data/low_res/{}"),
    "targets": ("target/{}", "input/{}"),
    "method": ("HR/{}", "bicubic/{}"),
    "frames": ("HR/{}/0001/im1", "small/{}/0001/im1"),
    "folder and end": ("high res/{}", "low res/{}_4"),
    "folder and x4": ("DIV2K/HR/{}", "DIV2K/bicubic/{}x4"),
    "deep": ("data/HR/{}", "data/down/by/four/{}"),
    "LR": ("{}", "{}_LR"),
    "lr": ("{}", "{}_lr"),
    "end": ("{}", "{}_bicubic"),
    "two ends": ("{}_large", "{}_small"),
    "x4": ("{}", "{}x4"),
    "start": ("{}", "lr_{}"),
    "two starts": ("HR_{}", "LR_{}"),
    "start without separator": ("GT{}", "LQ{}"),
    "end without separator": ("{}HR", "{}LR"),
}


@pytest.mark.parametrize("kind", COUPLES)
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_smaller_versions_are_never_taken_for_hr_images(paint, kind, factor):
    high, low = COUPLES[kind]
    sizes = {name.format(i): (33 + 8 * i) // part for i in range(3) for name, part in ((high, 1), (low, factor))}
    text = refusal(paint(sizes))
    assert "expected HR images only" in text
    assert f"{low.format(0)}.png ({33 // factor * 5 // 4}×{33 // factor} px) of {high.format(0)}.png (41×33 px)" in text
    assert 'give both folders, as {"hr": …, "lr": …} or HR=LR' in text


def test_remedy_for_pairs_in_one_folder_is_accepted(paint):
    folder = paint({"1_large": 32, "1_small": 8, "2_large": 40, "2_small": 10})
    assert 'HR=LR (this folder twice) with lr_template "{stem}_small" and hr_template "{stem}_large"' in refusal(folder)
    assert len(find_pairs([Folders(folder, folder, "{stem}_small", "{stem}_large")], "train", 4, folder)) == 2
    folder = paint({f"starts/{name}": 32 // (1 + 3 * name.startswith("LR")) for name in ("1", "2", "LR_1", "LR_2")})
    folder += "/starts"
    assert 'with lr_template "LR_{stem}" and hr_template "{stem}"' in refusal(folder)
    assert len(find_pairs([Folders(folder, folder, "LR_{stem}", "{stem}")], "train", 4, folder)) == 2


@pytest.mark.parametrize("twice", [False, True])
def test_remedy_for_aligned_pairs_is_accepted(paint, twice):
    """The LR images of RealSR are as large as their HR images, and named after the scale of the photographs."""
    folder = paint({f"Canon_{i}_{kind}": 32 + i for i in range(3) for kind in ("HR", "LR4")})
    templates = ("{stem}_LR4", "{stem}_HR")
    text = refusal((folder, folder) if twice else folder, 1)
    assert "their names are those of ×4, but their sizes fit; describe the names with " in text
    assert 'lr_template "{}" and hr_template "{}" (HR=LR={}={})'.format(*templates * 2) in text
    for pair in find_pairs([Folders(folder, None, *templates)], "train", 1, folder):
        assert pair.low.name == pair.high.name.replace("HR", "LR4")
        load_pair(pair, 1, 3)


@pytest.mark.parametrize(
    "sizes",
    [
        {f"IMG_{i}": 32 + i % 2 * 32 for i in range(6)},  # numbers are no versions
        {f"{animal}/IMG_{i}": 32 + i % 3 * 32 for animal in ("cat", "dog") for i in range(6)},
        {f"{animal}/{animal}_{i}": 64 if animal == "cat" else 32 for animal in ("cat", "dog") for i in range(6)},
        {"cat_red": 32, "cat_blue": 64, "dog": 24, "dog_big": 48, "bird_x2": 20},  # one couple is chance
        {f"{animal}/{i}": 32 + 8 * i + 5 * (animal == "dog") for animal in ("cat", "dog") for i in range(5)},
        {"cat/1": 32, "dog/1": 64, "dog/2": 20, "dog/3": 24},
        {f"im_x{i}": 32 for i in range(1, 6)},  # positions of tiles
        {f"{i:04}_s{part:03}": 32 for i in range(3) for part in range(1, 5)},
        {"lake": 32, "lake_LR": 32, "sea": 40},  # edited by a program
    ],
)
def test_folders_of_originals_are_used_as_they_are(paint, tmp_path, sizes):
    pairs = find_pairs([paint(sizes)], "train", 4, tmp_path)
    assert {pair.high.relative_to(tmp_path / "photos").with_suffix("").as_posix() for pair in pairs} == sizes.keys()
    assert all(pair.low is None for pair in pairs)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("low", [8, 32])
def test_few_pairs_among_originals_do_not_remove_the_originals(paint, number, low):
    originals = {f"{name}_{i}": 32 for name in ("lake", "sea") for i in range(number * 2)}
    pairs = {f"{name}_{end}": size for name in ("lake", "sea")[:number] for end, size in (("HR", 32), ("LR", low))}
    assert "lake_LR.png" in refusal(paint(originals | pairs))


def test_results_of_other_methods_are_left_out_and_counted(paint, tmp_path, messages):
    folder = paint({"1": 32, "1_bicubic": 32, "2": 40, "2_bicubic": 40, "by_bicubic": 40})
    pairs = find_pairs([folder], "train", 4, tmp_path)
    assert [pair.high.stem for pair in pairs] == ["1", "2", "by_bicubic"]
    assert "3 images; left out: 2 other versions (first: " in messages[0]


@pytest.mark.parametrize("spec", [lambda folder: folder, lambda folder: (folder, folder)])
def test_realsr_root_holds_all_scales(touch, tmp_path, messages, spec):
    places = [(f"{part}/{scale}", scale) for part in ("Train", "Test") for scale in (2, 3, 4)]
    for place, scale in places:
        touch(f"Canon/{place}", *(f"Canon_{i}_{kind}.png" for i in (1, 2) for kind in ("HR", f"LR{scale}")))
    for scale in (2, 3, 4):
        assert names(find_pairs([spec(str(tmp_path / "Canon"))], "train", scale, tmp_path), tmp_path / "Canon") == [
            (f"{part}/{scale}/Canon_{i}_HR.png", f"{part}/{scale}/Canon_{i}_LR{scale}.png")
            for part in ("Test", "Train")
            for i in (1, 2)
        ]
    assert "4 images; left out: 16 other-scale images (first: " in messages[0]
    (tmp_path / "Canon/Train/4/Canon_1_LR4.png").unlink()
    assert "1 image without partner (Train/4/Canon_1_HR.png)" in refusal(spec(str(tmp_path / "Canon")))


@pytest.mark.parametrize(
    ("high", "low"),
    [("{}_HR", "{}x4"), ("{}_HR", "{}_LR_x4"), ("{}_gt", "{}_lq"), ("{}", "{}X4"), ("{}", "{}-x4"), ("{}-HR", "{}-LR")],
)
def test_other_common_names_are_matched(touch, tmp_path, high, low):
    hr, lr = (touch(side, *(f"{name.format(i)}.png" for i in (1, 2))) for side, name in (("hr", high), ("lr", low)))
    assert len(find_pairs([(hr, lr)], "train", 4, tmp_path)) == 2


@pytest.mark.parametrize(
    ("highs", "lows", "got"),
    [
        (["0", "1"], ["0_LR", "0_lr", "1_LR"], "0_LR.png and 0_lr.png for 0.png"),
        (["0_HR", "0_hr", "1_HR"], ["0_LR", "1_LR"], "0_HR.png and 0_hr.png for 0_LR.png"),
        (["0", "1"], ["0x4w1", "0X4w1", "0x4w2", "1x4w1"], "0X4w1.png and 0x4w1.png for 0.png"),
    ],
)
def test_partners_that_differ_only_by_case_are_refused(touch, tmp_path, highs, lows, got):
    hr, lr = (touch(folder, *(f"{name}.png" for name in names)) for folder, names in (("hr", highs), ("lr", lows)))
    if len(list((tmp_path / "hr").iterdir())) + len(list((tmp_path / "lr").iterdir())) < len(highs + lows):
        pytest.skip("the file system ignores case")
    text = refusal(Folders(hr, lr))
    assert text == (f"dataset {hr}: expected one LR image for each HR image, got {got}; remove or rename one of them")


def test_images_whose_names_differ_only_by_case_have_their_own_partners(touch, tmp_path):
    hr, lr = touch("hr", "a.png", "A.png"), touch("lr", "a_LR.png", "A_lr.png")
    pairs = find_pairs([Folders(hr, lr)], "train", 4, "nowhere")
    assert {(pair.high.name, pair.low.name) for pair in pairs} == {("a.png", "a_LR.png"), ("A.png", "A_lr.png")}
