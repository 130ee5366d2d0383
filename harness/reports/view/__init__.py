"""`harness view`: a local, read-only page over a folder of runs.

`serving` runs the server, `app` has its pages, `guard` what every request must pass and every answer carries, `folder`
the list of runs, and `following` a run that is still going.
"""
