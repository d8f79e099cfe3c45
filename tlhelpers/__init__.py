"""tlhelpers: the helpers of a book on transfer learning, small enough to read in an evening.

    import tlhelpers as tl

    train, test = tl.load_dataset("solar_cells").split(test_size=0.25, seed=0)
    backbone = tl.load_backbone("efficientnet_lite0")
    head = tl.train_head(tl.extract_features(train, backbone), train.labels)
    classifier = tl.build_classifier(backbone, train.class_names, head=head)
    print(tl.evaluate(classifier, test))

Importing this package does not import TensorFlow; the first call that needs it does.
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

# name → module that has it, in the order a reader meets them
_HOME = {
    "read_image": "images",
    "resize_image": "images",
    "cache_dir": "downloads",
    "Card": "datasets",
    "Dataset": "datasets",
    "load_dataset": "datasets",
    "load_photo": "datasets",
    "duplicate_groups": "duplicates",
    "find_duplicates": "duplicates",
    "BACKBONES": "backbones",
    "Backbone": "backbones",
    "load_backbone": "backbones",
    "extract_features": "features",
    "Head": "heads",
    "train_head": "heads",
    "History": "finetuning",
    "fine_tune": "finetuning",
    "build_classifier": "classifiers",
    "load_classifier": "classifiers",
    "save_classifier": "classifiers",
    "Report": "evaluation",
    "proportion_ci": "evaluation",
    "evaluate": "evaluation",
    "check": "exercises",
    "Audit": "audit",
    "Finding": "audit",
    "audit": "audit",
}
_MODULES = (
    "images", "folders", "downloads", "datasets", "duplicates", "backbones", "engine", "store", "features",
    "heads", "parts", "finetuning", "classifiers", "evaluation",
    "claims", "exercises", "plots", "widgets", "probes", "audit",
)

__all__ = sorted({*_HOME, *_MODULES})


class _Package(ModuleType):
    def __setattr__(self, name, value):
        # Importing tlhelpers.audit would put the module where tl.audit(model, train, test) is to be found.
        super().__setattr__(name, getattr(value, name) if isinstance(value, ModuleType) and _HOME.get(name) == name else value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"tlhelpers.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"tlhelpers.{name}")
    else:
        raise AttributeError(f"module 'tlhelpers' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
