"""What a run costs, measured by hand: ``python -m benchmarks``. See README.md beside this file.

Nothing here is run by the tests: they count instead (commits, encodings, host calls).

`workload` says what is run and runs it with this project; `peer` and `peer_worker` run the same
with pyrlm-runtime, in a virtual environment of its own. `steps`, `fanout`, `log_size` and `repl`
measure; `figures` holds what they find, `report` shows it. No figure is written down anywhere but
in the limits of `figures.Check`, which are targets.
"""
