"""SBD's folder, which its tests share."""

import pytest


@pytest.fixture
def sbd(tmp_path):
    """SBD's folder of five images, and {name: (instance number of each pixel, classes)}."""
    from .sbd_folder import write_sbd  # here, because it skips the test if there is no scipy

    return tmp_path, write_sbd(tmp_path)
