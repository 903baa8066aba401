"""Who is at the keyboard: the name that stands beside what an operator decided."""

import getpass
import os


def operator() -> str:
    """The user's name on this host, also behind sudo; the number of one who has none."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # the first is what Python before 3.13 raises
        return f"user {os.getuid()}"
