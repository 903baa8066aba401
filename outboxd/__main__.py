"""`outboxd`, and `python -m outboxd`."""

import gc
import sys


def main() -> None:
    """The command `outboxd`."""
    gc.disable()  # modules that are loaded hold no garbage, but ever more to look through for it
    from outboxd.cli import main as cli

    gc.freeze()  # nor will they: they last as long as the process
    gc.enable()
    code = cli()
    gc.freeze()  # nor is it worth a tenth of a short command to look for garbage at its end
    sys.exit(code)


if __name__ == "__main__":
    main()
