"""Settings of the tests."""

from hypothesis import settings

settings.register_profile("machines may be busy", deadline=None, max_examples=50)
settings.load_profile("machines may be busy")
