"""A raw data set with a round that was asked, and an expert who answers from the truth."""

import raw_data

from nnunet_gmabs.annotation.planes import keep_planes
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Answer, Request, RequestedPlane, RequestedScan, write_answer
from nnunet_gmabs.annotation.rounds import write_round

PLANES = raw_data.FIRST_PLANES


def make_raw(folder, **more):
    """Four scans, the first with three planes drawn."""
    more = {"scans": 4, "labelled": (0,), "labels": raw_data.SPARSE_LABELS} | more
    return RawFolder(raw_data.write_raw(folder / "Dataset001_A", **more))


def request(planes_by_scan, **more):
    scans = tuple(
        RequestedScan(
            identifier,
            (f"imagesTr/{identifier}_0000.nii.gz",),
            tuple(RequestedPlane(axis, index, None, "because") for axis, index in planes),
        )
        for identifier, planes in planes_by_scan.items()
    )
    return Request(**{"round": 0, "created": "2030-01-01T00:00:00+00:00", "strategy": "random", "seed": 0} | more,
                   scans=scans)  # fmt: skip


def ask(raw, planes_by_scan, **more):
    return write_round(raw, request(planes_by_scan), **more)


def truth(identifier):
    return raw_data.scan_labels(int(identifier[-2:]))


def drawn(identifier, planes):
    return keep_planes(truth(identifier), planes, raw_data.IGNORE)


def answer(raw, number, identifier, planes, labels=None, annotator="anna", seconds=90.0):
    """An answer as the painter writes it."""
    _, properties = raw.read_image(identifier)
    labels = drawn(identifier, planes) if labels is None else labels
    said = Answer(identifier, tuple(planes), annotator, seconds, "test")
    return write_answer(raw, number, said, labels, properties)


def labels_of(raw, identifier):
    return raw.read_labels(raw.label_path(identifier))[0]
