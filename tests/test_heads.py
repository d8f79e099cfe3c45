"""heads.py: each method against another way to the same result, on real features; and what all of them refuse."""

import random
import warnings
from math import log

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

import tlhelpers as tl
from tlhelpers.features import predict
from tlhelpers.heads import BATCH_SIZE, FIXED_STRENGTH, METHODS, STRENGTHS


@pytest.fixture(scope="module")
def three(textiles, small):
    """Features and labels of 36 textiles of three classes."""
    some = textiles.sample(per_class=12, seed=0)
    return tl.extract_features(some, small), some.labels


@pytest.fixture(scope="module")
def two(cell_features, cells):
    return cell_features, cells.labels


@pytest.fixture(scope="module")
def people(faces, small):
    """Features and labels of ten photos of each of 40 people, as the data set orders them."""
    return tl.extract_features(faces, small), faces.labels


def first(people, per_class):
    """Rows of the first photos of each person, and the other rows."""
    rank = np.zeros(len(people[1]), int)
    for label in range(40):
        rank[people[1] == label] = np.arange(10)
    return np.flatnonzero(rank < per_class), np.flatnonzero(rank >= per_class)


# --- logistic regression ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0003, 0.01, 0.1])
@pytest.mark.parametrize("data", ["two", "three"])
def test_a_head_is_the_logistic_regression_of_scikit_learn(request, data, strength):
    features, labels = request.getfixturevalue(data)
    # the optimum, found in float64 and to the last digits: where a solver stops early hangs on those
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    wanted = LogisticRegression(C=strength, max_iter=10_000, tol=1e-10).fit(scaled, labels).predict_proba(scaled)
    head = tl.train_head(features, labels, strength=strength)
    assert head.strength == strength
    assert np.abs(head.predict_proba(features) - wanted).max() < 1e-4
    assert np.array_equal(head.predict(features), wanted.argmax(axis=1))


@pytest.mark.parametrize("data", ["two", "three"])
def test_with_one_scale_all_features_are_divided_by_the_root_of_their_mean_variance(request, data):
    features, labels = request.getfixturevalue(data)
    features = features.astype(np.float64)
    one = np.sqrt(features.var(axis=0).mean())
    wanted = LogisticRegression(C=0.01, max_iter=10_000, tol=1e-10).fit((features - features.mean(axis=0)) / one, labels)
    head = tl.train_head(features, labels, strength=0.01, scale="one")
    assert np.abs(head.predict_proba(features) - wanted.predict_proba((features - features.mean(axis=0)) / one)).max() < 1e-4
    assert np.abs(head.kernel * one - kernel_of(wanted)).max() < 1e-4
    # features in other units: "each" does not mind, "one" does
    other = features * np.where(np.arange(features.shape[1]) % 2, 100, 1)
    each = [tl.train_head(these, labels, strength=0.01).predict_proba(these) for these in (features, other)]
    assert np.abs(each[0] - each[1]).max() < 1e-3
    assert np.abs(tl.train_head(other, labels, strength=0.01, scale="one").predict_proba(other) - wanted.predict_proba(
        (features - features.mean(axis=0)) / one)).max() > 0.01  # fmt: skip


def test_bad_scales_and_features_that_never_change(two):
    features, labels = two
    with pytest.raises(ValueError, match="no scale 'all'.*'each', 'one'"):
        tl.train_head(features, labels, scale="all")
    with pytest.raises(ValueError, match="nearest_mean"):
        tl.train_head(features, labels, method="nearest_mean", scale="one")
    head = tl.train_head(np.ones((4, 3)), np.array([0, 1, 0, 1]), scale="one", strength=1.0)
    assert np.isfinite(head.kernel).all() and np.allclose(head.predict_proba(np.ones((1, 3))), 0.5)


def kernel_of(model):
    """scikit-learn's coefficients, (channels, k): for two classes it keeps one column, ours are ± half of it."""
    return model.coef_.T if len(model.classes_) > 2 else np.hstack([-model.coef_.T, model.coef_.T]) / 2


@pytest.mark.parametrize("channels", [1280, 24, 1])  # fewer photos than channels, and more: other ways to one optimum
@pytest.mark.parametrize("strength", [0.0001, 0.01, 1.0])
@pytest.mark.parametrize("data", ["two", "three"])
def test_the_kernel_is_that_of_scikit_learn_on_either_side_of_as_many_photos_as_channels(request, data, strength, channels):
    features, labels = request.getfixturevalue(data)
    features = features[:, features.std(axis=0) > 0][:, :channels].astype(np.float64)  # as it is, scikit-learn stays in it
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, max_iter=20_000, tol=1e-10).fit(scaler.transform(features), labels)
    head = tl.train_head(features, labels, strength=strength)
    assert np.abs(head.kernel * scaler.scale_[:, None] - kernel_of(model)).max() < 1e-4
    wanted = model.predict_proba(scaler.transform(features))
    assert np.abs(head.predict_proba(features) - wanted).max() < 1e-4


@pytest.mark.parametrize("data", ["two", "three"])
def test_the_head_inside_a_classifier_gives_the_same_probabilities(request, data, cells, textiles, small):
    features, labels = request.getfixturevalue(data)
    head = tl.train_head(features, labels, strength=0.01)
    photos = cells if data == "two" else textiles.sample(per_class=12, seed=0)
    classifier = tl.build_classifier(small, photos.class_names, head=head)
    found = predict(classifier, photos)
    assert np.abs(found - head.predict_proba(features)).max() < 1e-4


def test_probabilities_are_float32_and_sum_to_one(two):
    features, labels = two
    head = tl.train_head(features, labels, strength=0.01)
    for given in (features, features.astype(np.float64)):
        probabilities = head.predict_proba(given)
        assert probabilities.shape == (20, 2) and probabilities.dtype == np.float32
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert head.predict(features).dtype == np.int64


def test_huge_logits_overflow_nothing():
    head = tl.Head(np.array([[1e4, -1e4]], np.float32), np.zeros(2, np.float32), 1.0)
    assert head.predict_proba(np.array([[1.0], [-1.0]], np.float32)).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("channels", [1280, 30])
def test_strength_is_chosen_by_three_folds_and_lowest_log_loss(three, channels):
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    features, labels = three[0][:, :channels], three[1]
    scaled = StandardScaler().fit_transform(features)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(scaled, labels))

    def loss(C, kept, held):
        model = LogisticRegression(C=C, max_iter=1000).fit(scaled[kept], labels[kept])
        return log_loss(labels[held], model.predict_proba(scaled[held]))

    losses = [np.mean([loss(C, kept, held) for kept, held in folds]) for C in STRENGTHS]
    head = tl.train_head(features, labels)
    assert head.strength == STRENGTHS[int(np.argmin(losses))]
    fixed = tl.train_head(features, labels, strength=head.strength)
    assert np.abs(head.predict_proba(features) - fixed.predict_proba(features)).max() < 1e-4
    again = tl.train_head(features, labels)
    assert np.array_equal(head.kernel, again.kernel) and np.array_equal(head.bias, again.bias)


def test_with_fewer_than_three_photos_of_a_class_the_strength_is_fixed(three):
    features, labels = three
    few = np.flatnonzero(labels == 0)[:2].tolist() + np.flatnonzero(labels > 0).tolist()
    assert tl.train_head(features[few], labels[few]).strength == FIXED_STRENGTH == 0.01
    one_each = [np.flatnonzero(labels == label)[0] for label in range(3)]
    head = tl.train_head(features[one_each], labels[one_each])
    assert head.strength == 0.01 and head.predict(features[one_each]).tolist() == [0, 1, 2]


def test_a_feature_that_never_changes_breaks_nothing_and_says_nothing(two):
    features, labels = two
    constant = np.full((len(features), 1), 0.1, np.float32)
    head = tl.train_head(np.hstack([features, constant]), labels, strength=0.01)
    assert np.isfinite(head.kernel).all() and np.isfinite(head.bias).all()
    assert (head.kernel[-1] == 0).all()
    without = tl.train_head(features, labels, strength=0.01)
    assert np.abs(head.predict_proba(np.hstack([features, constant])) - without.predict_proba(features)).max() < 1e-3


# --- nearest mean -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning:sklearn", "ignore:invalid value:RuntimeWarning:sklearn")
@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_the_nearest_mean_is_that_of_scikit_learn(people, per_class):
    features, labels = people
    seen, unseen = first(people, per_class)
    head = tl.train_head(features[seen], labels[seen], method="nearest_mean")
    model = NearestCentroid().fit(features[seen].astype(np.float64), labels[seen])
    assert np.array_equal(head.predict(features[unseen]), model.predict(features[unseen].astype(np.float64)))
    assert head.strength is None and head.method == "nearest_mean"


def distances(features, labels, to):
    """Squared distances to class means as part of the total variance, by the definitions."""
    features, to = features.astype(np.float64), to.astype(np.float64)
    means = [features[labels == label].mean(axis=0) for label in range(labels.max() + 1)]
    return cdist(to, means, "sqeuclidean") / features.var(axis=0).sum()


def log_chances(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.log(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("per_class", [1, 2])
def test_below_three_photos_probabilities_are_a_softmax_of_distances(people, per_class):
    features, labels = people
    seen, unseen = first(people, per_class)
    head = tl.train_head(features[seen], labels[seen], method="nearest_mean")
    wanted = np.exp(log_chances(-distances(features[seen], labels[seen], features[unseen])))
    assert np.abs(head.predict_proba(features[unseen]) - wanted).max() < 1e-5


@pytest.mark.parametrize("data", ["two", "three", "people"])
def test_from_three_photos_the_steepness_is_best_for_photos_judged_without_their_own_part(request, data):
    features, labels = request.getfixturevalue(data)
    if data == "people":
        features, labels = (array[labels < 8] for array in (features, labels))
    total = features.astype(np.float64).var(axis=0).sum()
    scores = np.empty((len(features), labels.max() + 1))
    for row in range(len(features)):  # each photo once left out of its mean
        others = np.arange(len(features)) != row
        means = [features[others & (labels == label)].astype(np.float64).mean(axis=0) for label in range(labels.max() + 1)]
        scores[row] = -cdist(features[row : row + 1].astype(np.float64), means, "sqeuclidean")[0] / total

    def loss(steepness):
        return -log_chances(steepness * scores)[np.arange(len(labels)), labels].mean()  # as many photos of each class

    head = tl.train_head(features, labels, method="nearest_mean")
    apart = distances(features, labels, features)
    logits = features @ head.kernel + head.bias
    steepness = np.ptp(logits, axis=1).sum() / np.ptp(apart, axis=1).sum()
    assert np.abs(log_chances(-steepness * apart) - log_chances(logits.astype(np.float64))).max() < 1e-2
    assert loss(steepness) < min(loss(steepness * 0.97), loss(steepness * 1.03))
    assert loss(steepness) < log(labels.max() + 1)  # than knowing nothing


def test_the_nearest_mean_does_not_mind_how_many_photos_a_class_has(three):
    features, labels = three
    rows = np.concatenate([np.arange(len(labels)), *[np.flatnonzero(labels == 0)] * 4])
    heads = [tl.train_head(features[some], labels[some], method="nearest_mean") for some in (slice(None), rows)]
    assert np.array_equal(heads[0].predict(features), heads[1].predict(features))


def test_one_photo_of_a_person_tells_more_than_chance_and_five_tell_more_than_one(people):
    # Measured here, 40 people, photos of 64 pixels: 0.75 and 0.91
    features, labels = people
    accuracies = []
    for per_class in (1, 5):
        seen, unseen = first(people, per_class)
        head = tl.train_head(features[seen], labels[seen], method="nearest_mean")
        accuracies.append(np.mean(head.predict(features[unseen]) == labels[unseen]))
    assert accuracies[0] > 0.5 and accuracies[1] > accuracies[0] + 0.05


# --- keras --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.01, 1.0])
@pytest.mark.parametrize("data", ["two", "three"])
def test_the_keras_head_ends_at_the_optimum_of_logistic_regression(request, data, strength):
    features, labels = request.getfixturevalue(data)
    features = features[:, :12].astype(np.float64)  # more photos than features: one optimum, sharply curved
    head = tl.train_head(features, labels, method="keras", strength=strength)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, max_iter=20_000, tol=1e-10).fit(scaler.transform(features), labels)
    wanted = model.predict_proba(scaler.transform(features))
    assert np.abs(head.predict_proba(features) - wanted).max() < 1e-3
    assert head.method == "keras" and head.strength == strength


def test_keras_and_logistic_regression_agree_on_40_people(people):
    features, labels = people
    seen, unseen = first(people, 3)
    ours, theirs = (tl.train_head(features[seen], labels[seen], method=method) for method in ("keras", METHODS[0]))
    assert ours.strength == theirs.strength  # chosen in the same way
    assert np.mean(ours.predict(features[unseen]) == theirs.predict(features[unseen])) > 0.98
    assert ours.method == "keras" and theirs.method == "logistic_regression"
    assert np.abs(ours.predict_proba(features[unseen]) - theirs.predict_proba(features[unseen])).max() < 0.05


def test_the_seed_decides_the_keras_head_and_nothing_else_does_or_is_touched(people):
    features, labels = np.tile(people[0][:, :16], (2, 1)), np.tile(people[1], 2)
    assert len(labels) > BATCH_SIZE  # so that the order of the photos matters
    states = random.getstate(), np.random.get_state()[1].tolist()
    heads = [tl.train_head(features, labels, method="keras", strength=0.1, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(heads[0].kernel, heads[1].kernel) and np.array_equal(heads[0].bias, heads[1].bias)
    assert not np.array_equal(heads[0].kernel, heads[2].kernel)
    assert np.mean(heads[0].predict(features) == heads[2].predict(features)) > 0.95
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


# --- all three ----------------------------------------------------------------------------------------------------


def test_a_head_shows_its_size(two):
    assert repr(tl.train_head(*two, strength=0.01)) == "<Head: 1280 features → 2 classes, logistic_regression, C = 0.01>"
    assert repr(tl.train_head(*two, method="nearest_mean")) == "<Head: 1280 features → 2 classes, nearest_mean>"
    assert repr(tl.Head(np.zeros((3, 2)), np.zeros(2), 0.1, "keras")) == "<Head: 3 features → 2 classes, keras, C = 0.1>"


GOOD = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.filterwarnings("ignore:.* could not be read and are left out")
@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (GOOD, [0, 1, 0, 1, 0], r"features have shape \(6, 2\) and labels \(5,\)"),
        (GOOD[:, 0], [0, 1, 0, 1, 0, 1], r"expected \(n, channels\) and \(n,\)"),
        (GOOD, np.eye(6)[:, :2], r"expected \(n, channels\) and \(n,\)"),
        (GOOD[:0], np.zeros(0, int), "expected whole numbers"),
        (GOOD, [0.0, 1.0, 0.0, 1.0, 0.0, 1.0], "labels are float64; expected whole numbers"),
        (GOOD, ["a", "b", "a", "b", "a", "b"], "expected whole numbers"),
        (GOOD, [0, 1, 0, 1, 0, -1], "expected whole numbers"),
        (GOOD, [0, 2, 0, 2, 0, 2], r"photos a label are \[3, 0, 3\]"),
        (GOOD, [1, 1, 1, 2, 2, 2], r"photos a label are \[0, 3, 3\]"),
        (GOOD, [0, 0, 0, 0, 0, 0], "at least two labels"),
        (np.where(GOOD == 3, np.nan, GOOD), [0, 1, 0, 1, 0, 1], "no finite number"),
        (np.where(GOOD == 3, np.inf, GOOD), [0, 1, 0, 1, 0, 1], "no finite number"),
        (np.where(GOOD == 3, -np.inf, GOOD), [0, 1, 0, 1, 0, 1], "no finite number"),
        (GOOD, [0, 1, 0, 1, 0, 10**15], "labels run to 1000000000000000 for 6 photos"),
        (np.where(np.arange(6)[:, None] > 3, np.nan, GOOD), [0, 0, 0, 0, 1, 1], "at least two labels"),
        (np.full((6, 2), np.nan), [0, 1, 0, 1, 0, 1], "at least two labels"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_features_and_labels_that_do_not_fit_are_refused(features, labels, message, method):
    with pytest.raises(ValueError, match=message):
        tl.train_head(features, labels, method=method)


@pytest.mark.parametrize("strength", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["logistic_regression", "keras"])
def test_a_strength_that_is_none_is_refused(strength, method):
    with pytest.raises(ValueError, match="strength is .* expected a number above 0"):
        tl.train_head(GOOD, [0, 1, 0, 1, 0, 1], method=method, strength=strength)


def test_the_nearest_mean_refuses_a_strength_that_it_could_not_use():
    with pytest.raises(ValueError, match="strength is a price on large weights, and 'nearest_mean' fits none"):
        tl.train_head(GOOD, [0, 1, 0, 1, 0, 1], method="nearest_mean", strength=0.01)


@pytest.mark.parametrize("method", ["svm", None, 3])
def test_an_unknown_method_is_answered_with_those_there_are(method):
    with pytest.raises(ValueError, match="there are 'logistic_regression', 'nearest_mean', 'keras'"):
        tl.train_head(GOOD, [0, 1, 0, 1, 0, 1], method=method)


def test_a_head_refuses_features_of_another_size(two):
    head = tl.train_head(*two, strength=0.01)
    for features in (np.zeros((3, 5)), np.zeros(1280)):
        with pytest.raises(ValueError, match=r"this head takes \(n, 1280\)"):
            head.predict_proba(features)


# Adam's steps are not the same in other units of the last digits: its head is compared less closely.
CLOSE = {"logistic_regression": 1e-4, "nearest_mean": 1e-4, "keras": 5e-3}


@pytest.mark.parametrize("method", METHODS)
def test_units_and_zero_of_the_features_change_nothing(three, method):
    features, labels = three
    plain = tl.train_head(features, labels, method=method)
    scaled = tl.train_head(1000 * features + 50, labels, method=method)
    assert scaled.strength == plain.strength
    change = np.abs(scaled.predict_proba(1000 * features + 50) - plain.predict_proba(features)).max()
    assert change < 10 * CLOSE[method]  # float32 has seven digits, and the sum over 1,280 features loses two


@pytest.mark.parametrize("method", ["logistic_regression", "keras"])
def test_where_features_are_standardised_each_may_have_units_of_its_own(three, method):
    features, labels = three
    units = np.random.default_rng(0).uniform(0.1, 10, features.shape[1]).astype(np.float32)
    heads = [tl.train_head(some, labels, method=method, strength=0.01) for some in (features, features * units)]
    change = np.abs(heads[0].predict_proba(features) - heads[1].predict_proba(features * units)).max()
    assert change < CLOSE[method]


@pytest.mark.parametrize("method", METHODS)
def test_renumbering_the_classes_renumbers_the_columns_and_changes_nothing_else(three, method):
    features, labels = three
    names = np.array([2, 0, 1])
    strength = None if method == "nearest_mean" else 0.01
    plain = tl.train_head(features, labels, method=method, strength=strength)
    renamed = tl.train_head(features, names[labels], method=method, strength=strength)
    assert np.abs(renamed.predict_proba(features)[:, names] - plain.predict_proba(features)).max() < CLOSE[method]


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_photos_changes_nothing(three, method):
    features, labels = three
    order = np.random.default_rng(0).permutation(len(labels))
    strength = None if method == "nearest_mean" else 0.01
    plain = tl.train_head(features, labels, method=method, strength=strength)
    shuffled = tl.train_head(features[order], labels[order], method=method, strength=strength)
    assert np.abs(shuffled.predict_proba(features) - plain.predict_proba(features)).max() < CLOSE[method]


@pytest.mark.parametrize("method", METHODS)
def test_features_may_be_float16_or_lie_on_disk(three, method, tmp_path):
    features, labels = three[0].astype(np.float16), three[1].astype(np.uint64)
    np.save(tmp_path / "features.npy", features)
    on_disk = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert isinstance(on_disk, np.memmap)
    plain = tl.train_head(features.astype(np.float32), labels.astype(np.int64), method=method)
    for given in (features, on_disk):
        head = tl.train_head(given, labels, method=method)
        assert head.kernel.dtype == head.bias.dtype == np.float32
        assert np.array_equal(head.kernel, plain.kernel) and head.strength == plain.strength
        assert np.array_equal(head.predict_proba(given), plain.predict_proba(features.astype(np.float32)))


@pytest.mark.parametrize("method", METHODS)
def test_photos_that_could_not_be_read_are_left_out_by_every_method(three, method):
    features, labels = three[0].copy(), three[1]
    features[[2, 30]] = np.nan
    kept = np.setdiff1d(np.arange(36), [2, 30])
    with pytest.warns(UserWarning, match="2 of 36 photos could not be read and are left out") as caught:
        head = tl.train_head(features, labels, method=method)
    assert caught[0].filename == __file__  # the line that called, not one of ours
    assert np.array_equal(head.kernel, tl.train_head(features[kept], labels[kept], method=method).kernel)


@pytest.mark.parametrize("method", METHODS)
def test_one_photo_a_class_is_enough_and_nothing_is_said_of_it(people, method):
    features, labels = people
    seen, unseen = first(people, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # see conftest.py
        head = tl.train_head(features[seen], labels[seen], method=method)
    assert head.strength == (None if method == "nearest_mean" else FIXED_STRENGTH)
    assert head.predict(features[seen]).tolist() == labels[seen].tolist()
    assert np.mean(head.predict(features[unseen]) == labels[unseen]) > 0.5  # chance: 1 in 40


@pytest.mark.parametrize("method", METHODS)
def test_photos_all_alike_leave_all_classes_equally_probable(method):
    alike = np.full((6, 4), 0.1, np.float32)
    head = tl.train_head(alike, [0, 1, 0, 1, 0, 1], method=method)
    assert np.allclose(head.predict_proba(alike), 0.5, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_head_can_be_built_into_a_classifier_that_plain_keras_loads(three, method, textiles, small, tmp_path):
    import keras

    photos = textiles.sample(per_class=12, seed=0)
    head = tl.train_head(*three, method=method)
    path = tl.save_classifier(tl.build_classifier(small, photos.class_names, head=head), tmp_path / "textiles.keras")
    found = predict(keras.models.load_model(path), photos)
    assert np.abs(found - head.predict_proba(three[0])).max() < 1e-4
