"""What is read beside nnU-Net's preprocessed data."""

import pickle

import blosc2
import numpy as np
import pytest

from nnunet_gmabs.data import preprocessed
from nnunet_gmabs.errors import InputError


def test_image_shape_and_properties_come_back(tmp_path):
    voxels = np.arange(2 * 5 * 6 * 7, dtype=np.float32).reshape(2, 5, 6, 7)
    blosc2.asarray(voxels, urlpath=str(tmp_path / "a.b2nd"))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"spacing": [3.0, 2.0, 1.0]}))
    assert np.array_equal(preprocessed.image(tmp_path, "a"), voxels)
    assert preprocessed.shape(tmp_path, "a") == (5, 6, 7)
    assert preprocessed.properties(tmp_path, "a") == {"spacing": [3.0, 2.0, 1.0]}


@pytest.mark.parametrize("kind", [InputError, OSError], ids=["said to a user", "outlived by a training"])
@pytest.mark.parametrize("read", [preprocessed.image, preprocessed.shape, preprocessed.properties])
def test_a_missing_file_is_named_with_its_cure(tmp_path, read, kind):
    with pytest.raises(kind, match=r"a\.(b2nd|pkl) is missing: the scan is not preprocessed. Run `gmabs prepare`\."):
        read(tmp_path, "a")
