"""features.py, heads.py and evaluation.py: from photos to features, to a head, to a report, each against another way."""

from math import sqrt

import numpy as np
import pytest

import tlhelpers as tl
from tlhelpers.features import predict


def close(ours, theirs):
    """Another engine adds in another order: the largest difference, as part of the largest value."""
    return np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


# --- extract_features ---------------------------------------------------------------------------------------------


def test_features_are_what_plain_keras_predicts(cell_features, cell_photos, small):
    plain = small.model.predict(cell_photos, batch_size=8, verbose=0)
    assert cell_features.shape == (20, 1280) and cell_features.dtype == np.float32
    assert close(cell_features, plain)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20, 64])
def test_batch_size_changes_neither_features_nor_their_order(cells, small, cell_features, batch_size):
    features = tl.extract_features(cells, small, batch_size=batch_size, cache=False)
    assert features.shape == cell_features.shape
    assert close(features, cell_features)


def test_rows_follow_the_order_of_the_data_set(cells, small, cell_features):
    order = np.random.default_rng(0).permutation(len(cells))
    shuffled = tl.extract_features(cells.subset(order), small, batch_size=6, cache=False)
    assert close(shuffled, cell_features[order])


def test_pooled_features_are_the_means_of_the_maps(cells, small):
    for name, shape in (("stage_3", (8, 8, 40)), ("top", (2, 2, 1280))):
        maps = tl.extract_features(cells, small, cut_point=name, pool=False)
        pooled = tl.extract_features(cells, small, cut_point=name)
        assert maps.shape == (20, *shape) and maps.dtype == np.float32
        assert close(maps.mean(axis=(1, 2)), pooled)


def test_a_list_of_cut_points_gives_the_features_of_each(cells, small, cell_features):
    several = tl.extract_features(cells, small, cut_point=["stage_5", "top", "stem"], batch_size=8)
    assert isinstance(several, list) and [features.shape for features in several] == [(20, 112), (20, 1280), (20, 32)]
    assert close(several[1], cell_features)
    alone = tl.extract_features(cells, small, cut_point="stage_5")
    assert close(several[0], alone)


def test_a_list_of_one_cut_point_gives_a_list_of_one(cells, small):
    one = tl.extract_features(cells.subset(slice(3)), small, cut_point=["stage_1"], batch_size=2)
    assert isinstance(one, list) and [features.shape for features in one] == [(3, 16)]


def test_an_unknown_cut_point_is_answered_with_those_there_are(cells, small):
    with pytest.raises(ValueError, match="can be cut at stem"):
        tl.extract_features(cells, small, cut_point="stage_9")


def test_no_photos_are_refused(cells, small):
    with pytest.raises(ValueError, match="solar_cells: no photos"):
        tl.extract_features(cells.subset(slice(0)), small)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_no_photos_are_refused(cells, small, batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}"):
        tl.extract_features(cells, small, batch_size=batch_size)


@pytest.fixture
def broken(cells, tmp_path):
    """A function that puts a file that is no photo into rows of the cells."""
    (tmp_path / "broken.png").write_bytes(b"no photo")

    def put(*rows):
        files = [tmp_path / "broken.png" if row in rows else file for row, file in enumerate(cells.files)]
        return tl.Dataset("broken", files, cells.labels, cells.class_names, cells.card)

    return put


@pytest.mark.parametrize("rows", [(0,), (4,), (19,), (0, 3, 4, 19)])
def test_photos_that_cannot_be_read_are_named_and_end_nothing_whichever_batch_they_are_in(cells, small, broken, rows):
    with pytest.warns(UserWarning, match=rf"broken: {len(rows)} of 20 photos cannot be read.*broken\.png: no photo"):
        features = tl.extract_features(broken(*rows), small, cut_point="stem", batch_size=4)
    whole = tl.extract_features(cells, small, cut_point="stem", batch_size=4)
    others = np.setdiff1d(np.arange(20), rows)
    assert np.isnan(features[list(rows)]).all() and np.array_equal(features[others], whole[others])


def test_where_no_photo_can_be_read_there_is_nothing_to_go_on_with(small, broken):
    with pytest.raises(ValueError, match=r"broken: none of its 20 photos can be read; the first: .*broken\.png"):
        tl.extract_features(broken(*range(20)), small, cut_point="stem")


def test_a_head_leaves_out_photos_that_could_not_be_read(cell_features, cells):
    features = cell_features.copy()
    features[[2, 11]] = np.nan
    with pytest.warns(UserWarning, match="2 of 20 photos could not be read and are left out"):
        head = tl.train_head(features, cells.labels, strength=0.01)
    kept = np.setdiff1d(np.arange(20), [2, 11])
    assert np.array_equal(head.kernel, tl.train_head(cell_features[kept], cells.labels[kept], strength=0.01).kernel)


def test_evaluate_leaves_out_and_names_photos_that_can_no_longer_be_read(cells, small, cell_features, broken):
    classifier = tl.build_classifier(small, cells.class_names, head=tl.train_head(cell_features, cells.labels, strength=0.01))
    report, whole = tl.evaluate(classifier, broken(3, 7)), tl.evaluate(classifier, cells)
    kept = np.setdiff1d(np.arange(20), [3, 7])
    assert report.n == 18 and np.array_equal(report.labels, cells.labels[kept])
    assert np.allclose(report.probabilities, whole.probabilities[kept], atol=1e-5)
    assert [path.name for path, _ in report.left_out] == ["broken.png"] * 2 and "18 photos, 2 left out" in str(report)
    assert report.files == tuple(cells.files[row] for row in kept)  # so that wrong rows can still be looked up


def test_a_model_without_one_fixed_size_is_refused(cells):
    import keras

    for shape in ((None, None, 3), (32, 48, 3)):
        photos = keras.Input(shape)
        model = keras.Model(photos, keras.layers.GlobalAveragePooling2D()(photos))
        with pytest.raises(ValueError, match="fixed size"):
            predict(model, cells)


# --- Report -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    """Eight photos of cats (4), dogs (3) and eels (1), counted by hand below."""
    said = [0, 0, 1, 0, 1, 1, 0, 1]  # no photo is called an eel
    probabilities = np.eye(4, dtype=np.float32)[said] * 0.8 + 0.05
    return tl.Report(np.array([0, 0, 0, 0, 1, 1, 1, 2]), probabilities, ("cat", "dog", "eel", "fox"))


def test_confusion_is_counted_with_truth_in_rows(report):
    assert report.confusion.tolist() == [[3, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert report.confusion.sum() == report.n == 8


def test_accuracy_and_wrong_rows_are_those_counted_by_hand(report):
    assert report.predictions.tolist() == [0, 0, 1, 0, 1, 1, 0, 1]
    assert report.wrong.tolist() == [2, 6, 7]
    assert report.accuracy == 5 / 8
    assert report.accuracy_ci == tl.proportion_ci(5, 8)


def test_recall_and_precision_are_those_counted_by_hand(report):
    assert list(report.per_class) == ["cat", "dog", "eel", "fox"]
    cat, dog, eel, fox = report.per_class.values()
    assert (cat["n"], cat["recall"], cat["precision"]) == (4, 3 / 4, 3 / 4)
    assert (dog["n"], dog["recall"], dog["precision"]) == (3, 2 / 3, 2 / 4)
    assert (eel["n"], eel["recall"], eel["precision"]) == (1, 0, None)  # never named
    assert fox == {"n": 0, "recall": None, "recall_ci": None, "precision": None}  # not there
    assert cat["recall_ci"] == tl.proportion_ci(3, 4) and eel["recall_ci"] == tl.proportion_ci(0, 1)


def test_a_report_says_accuracy_interval_and_photos(report):
    low, high = report.accuracy_ci
    lines = str(report).splitlines()
    assert lines[0] == f"accuracy 62.5 %, 95 % interval {100 * low:.1f} to {100 * high:.1f} %, 8 photos, 0 left out"
    assert lines[2].split() == ["cat", "4", "75.0", "%", "75.0", "%"]
    assert lines[3].split() == ["dog", "3", "66.7", "%", "50.0", "%"]
    assert lines[5].split() == ["fox", "0", "–", "–"]


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "do not fit"),
        ([], np.zeros((0, 2)), "at least 1"),
        ([0], [[0.2, 0.3, 0.5]], "do not fit"),
        ([0, 2], [[0.5, 0.5]] * 2, "labels run from 0 to 2"),
        ([0, -1], [[0.5, 0.5]] * 2, "labels run from -1 to 0"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], "no finite number"),
    ],
)
def test_what_makes_no_report_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        tl.Report(np.array(labels, int), np.array(probabilities, np.float32), ("a", "b"))


# --- proportion_ci ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857–872, table I, method 3 (Wilson's score without continuity correction)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_the_literature(right, n, low, high):
    assert tl.proportion_ci(right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 10, 656, 10_000])
def test_the_interval_is_that_of_wilsons_formula(n):
    z = 1.959963984540054  # 97.5 % of the normal distribution lies below
    for right in {0, 1, n // 3, n - 1, n}:
        p = right / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        low, high = tl.proportion_ci(right, n)
        assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
        assert 0 <= low <= p <= high <= 1


@pytest.mark.parametrize(("right", "n"), [(3, 2), (-1, 5), (0, 0), (0, -1)])
def test_a_proportion_that_is_none_is_refused(right, n):
    with pytest.raises(ValueError):
        tl.proportion_ci(right, n)


# --- evaluate -----------------------------------------------------------------------------------------------------


def test_evaluate_counts_what_the_classifier_says(cells, small, cell_features):
    head = tl.train_head(cell_features[::2], cells.labels[::2], strength=0.01)
    classifier = tl.build_classifier(small, cells.class_names, head=head)
    report = tl.evaluate(classifier, cells, batch_size=7)
    assert np.abs(report.probabilities - head.predict_proba(cell_features)).max() < 1e-4
    assert np.array_equal(report.labels, cells.labels)
    assert report.class_names == cells.class_names
    assert report.accuracy == np.mean(head.predict(cell_features) == cells.labels)


def test_photos_left_out_are_reported(cells, small):
    left_out = ((cells.files[0], "it breaks off"),)
    some = tl.Dataset("some", cells.files[1:], cells.labels[1:], cells.class_names, cells.card, left_out=left_out)
    report = tl.evaluate(tl.build_classifier(small, cells.class_names), some)
    assert report.left_out == left_out
    assert "19 photos, 1 left out" in str(report)


def test_another_order_of_classes_is_refused(cells, small):
    classifier = tl.build_classifier(small, cells.class_names[::-1])
    with pytest.raises(ValueError, match="names and order must be the same"):
        tl.evaluate(classifier, cells)


def dense_on(small, units, activation):
    import keras

    return keras.Model(small.model.input, keras.layers.Dense(units, activation=activation)(small.model.output))


def test_another_number_of_classes_is_refused(cells, small):
    with pytest.raises(ValueError, match="3 outputs, solar_cells has 2 classes"):
        tl.evaluate(dense_on(small, 3, "softmax"), cells)


@pytest.mark.parametrize("activation", [None, "sigmoid", "relu"])
def test_outputs_that_are_no_probabilities_are_refused(cells, small, activation):
    import keras

    keras.utils.set_random_seed(0)
    with pytest.raises(ValueError, match="give it a softmax at its end"):
        tl.evaluate(dense_on(small, 2, activation), cells)


def test_a_classifier_of_plain_keras_is_evaluated_too(cells, small):
    report = tl.evaluate(dense_on(small, 2, "softmax"), cells)
    assert report.n == 20 and report.class_names == cells.class_names


def test_a_classifier_whose_training_has_failed_is_refused(cells, small):
    classifier = tl.build_classifier(small, cells.class_names)
    classifier.get_layer("logits").bias.assign([np.nan, 0])
    with pytest.raises(ValueError, match="its training has failed"):
        tl.evaluate(classifier, cells)


# --- from end to end ----------------------------------------------------------------------------------------------


def test_40_people_are_told_apart_after_5_photos_each(faces, lite0):
    # Measured for the book: 0.973 ± 0.011 over ten draws of the training photos
    features = tl.extract_features(faces, lite0)
    accuracies = []
    for seed in range(3):
        chosen = set(faces.sample(per_class=5, seed=seed).files)
        seen = np.array([file in chosen for file in faces.files])
        head = tl.train_head(features[seen], faces.labels[seen], strength=0.01)
        accuracies.append(np.mean(head.predict(features[~seen]) == faces.labels[~seen]))
    assert np.mean(accuracies) >= 0.95 and min(accuracies) >= 0.93

    # The same from photos to names, with one unseen photo a person
    unseen = faces.subset(~seen).sample(per_class=1)
    report = tl.evaluate(tl.build_classifier(lite0, faces.class_names, head=head), unseen)
    wanted = head.predict_proba(features[[faces.files.index(file) for file in unseen.files]])
    assert np.abs(report.probabilities - wanted).max() < 1e-3
    assert report.n == 40 and report.accuracy > 0.85


def test_an_accuracy_where_a_count_belongs_is_refused():
    with pytest.raises((TypeError, ValueError)):
        tl.proportion_ci(0.85, 100)
