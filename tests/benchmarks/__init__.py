"""What outboxd costs, each figure beside its floor: `python -m tests.benchmarks`.

A floor is the same work written with the bare library, or an installed peer, taken in the same run and in
turns with it: the machine is shared, and only the ratio of two figures of one minute says anything.
"""
