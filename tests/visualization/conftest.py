import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch):
    """Collect the figures that a test saves; they are written as well."""
    saved = []
    save = Figure.savefig

    def spy(self, *args, **kwargs):
        saved.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved
