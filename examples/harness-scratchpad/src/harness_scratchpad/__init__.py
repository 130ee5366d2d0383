"""Show your work: sums, polynomials and programs, asked with a scratchpad and without.

In the manner of Nye et al. 2021, Show Your Work: Scratchpads for Intermediate Computation with Language Models,
arXiv:2112.00114. `problems` says what a problem is and which are for training; `addition`, `polynomial` and `program`
make them; `benchmarks` and `parser` are the plugins, `command` writes training data.
"""
