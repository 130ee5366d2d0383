"""The version, apart from what `harness` offers, which imports everything that asks for it."""

__version__ = "0.1.0"
