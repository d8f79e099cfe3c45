"""What an audit costs: seconds for a classifier with the photos it was trained and tested on, and in passes of the network.

Solar cells, half of the photos for training and half for tests; the classifier is a head on frozen features. The cache is
empty in each round: fingerprints of all photos, features and the compiled step are paid for.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import common

import tlhelpers as tl


def work(args):
    photos = common.drawn(tl.load_dataset("solar_cells"), 2 * args.photos)
    train, test = photos.split(test_size=0.5, seed=0)
    backbone = tl.load_backbone(args.backbone, image_size=args.image_size)
    head = tl.train_head(tl.extract_features(train, backbone), train.labels)
    classifier = tl.build_classifier(backbone, train.class_names, head=head)

    def audit():
        with common.empty_cache():
            return tl.audit(classifier, train, test)

    ways = {"audit": audit, "Keras predict": partial(tl.features.predict, classifier, test)}
    seconds, values = common.paired_rounds(ways, args.rounds)
    times = common.ratio(seconds["audit"], seconds["Keras predict"])
    found = sorted({finding.check for result in values["audit"] for finding in result.findings})
    took = median(seconds["audit"])
    result = {
        "photos": {"train": len(train), "test": len(test)}, "seconds": seconds, "passes_of_the_test_photos": times, "findings": found,
        "bars": [common.bar(f"seconds for {len(train):,} training photos and {len(test):,} test photos", took, at_most=60)],
    }  # fmt: skip
    row = (f"{len(train):,} + {len(test):,}", f"{took:.1f}", common.told(times), ", ".join(found) or "none")
    return result, [common.table("tlhelpers.audit", ("photos", "seconds", "times Keras predict of the test photos", "findings"), [row])]


if __name__ == "__main__":
    common.run(common.parser(__doc__, rounds=3, photos=1000), work)
