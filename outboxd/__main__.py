"""`outboxd`, and `python -m outboxd`."""

import sys


def main() -> None:
    """The command `outboxd`."""
    from outboxd.cli import main as cli

    sys.exit(cli())


if __name__ == "__main__":
    main()
