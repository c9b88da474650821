"""What tests of stores share."""

import pytest


@pytest.fixture
def no_pictures(monkeypatch):
    """What is tested shows in the summary; the page, which takes most of the time, has tests of its own."""
    monkeypatch.setattr(
        "mri_transfer.datasets.store.summary.store_page.write_page",
        lambda store, summary, licences, path, banner: path.touch(),
    )
