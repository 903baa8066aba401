"""The tests that make their own cases, with many more of them than the suite has time for.

    python -m tests.fuzz --times 50 --seed 1

The same seed makes the same cases. A case that fails is shrunk and shown; the suite then finds it at once.
"""

import argparse
import os
import sys
from pathlib import Path

import pytest

TIMES = "OUTBOXD_FUZZ_TIMES"

FILES = (
    "test_outbox_rules.py",
    "test_delivery_rules.py",
    "test_fold_properties.py",
    "test_schedule_properties.py",
    "test_config_yaml.py",
    "test_fuzz_payloads.py",
    "test_fuzz_commands.py",
    "test_wire.py",
)


def cases(usual: int) -> int:
    """So many cases in the suite; as many times that as `python -m tests.fuzz` was asked for."""
    return usual * int(os.environ.get(TIMES, "1"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="as many cases as the suite has, times this")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ[TIMES] = str(options.times)
    files = [str(Path(__file__).with_name(name)) for name in FILES]
    return int(pytest.main([*files, "-n", "2", f"--hypothesis-seed={options.seed}"]))


if __name__ == "__main__":
    sys.exit(main())
