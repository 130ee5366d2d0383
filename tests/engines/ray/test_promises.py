"""What every engine promises, of transformers in two replicas."""

from __future__ import annotations

import pytest

from harness.testing.conformance import Check, Subject, checks

pytestmark = pytest.mark.usefixtures("ray_here")

SUBJECT = Subject("engines", "ray", options={"engine": "transformers", "replicas": 2})


@pytest.mark.parametrize("check", checks("engines"), ids=str)
def test_it_keeps_its_promises(check: Check) -> None:
    check(SUBJECT)
