"""Imported last by the fork server of `tests.processes`: what it holds is for its forks to use, not to collect.

Else each fork goes through a million objects, and has a page of its own of each, when it first collects its garbage.
"""

import gc

gc.collect()
gc.freeze()
