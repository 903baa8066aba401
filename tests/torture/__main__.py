"""The whole way of an event under fire, and the count of what is left.

    python -m tests.torture --mode hybrid
    python -m tests.torture --daemons 2 --stops 3

Producers write shuffled and doubled histories of their customers, while `outboxd backfill` writes what the
shop had of some of them at a time. Daemons and producers are killed, daemons stand still for longer than
their leases last, Brevo answers badly or not at all. In the end every contact must be as the newest version
of each fact says, every event must be accounted for once, no call may have told what was older than what
Brevo had taken, and nothing of a customer may stand in anything that operators are told.
"""

import argparse
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from tests.torture.storm import Plan, run, unsound


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    for each in fields(Plan):
        if each.type is int or each.type is float:
            kind = type(each.default)
            parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default)
    parser.add_argument("--mode", choices=("realtime", "batch", "hybrid"), default=Plan.mode)
    parser.add_argument(
        "--hastens", action="store_true", help="do not wait for the leases of the killed to lapse"
    )
    plan = Plan(**vars(parser.parse_args()))
    if plan.events < plan.customers:
        parser.error("each customer has an event at least: more --events, or fewer --customers")
    if plan.daemons > 1 and (plan.mode != "realtime" or plan.hastens):
        parser.error(
            "daemons that share leave each other's imports and leases alone: realtime, without --hastens"
        )
    with tempfile.TemporaryDirectory() as directory:
        figures = run(plan, Path(directory))
    for name, figure in figures.items():
        print(f"{name:<32}{figure}")
    wrong = ", ".join(unsound(figures))
    print(f"{'verdict':<32}{f'not sound: {wrong}' if wrong else 'sound'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
