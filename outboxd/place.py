"""Where the outbox lies on this host: whose it is, who may write there, and whether there is room.

It looks at a directory and at the files in it, and knows nothing of what they hold: opening them is the
database's business alone. The directory sets the measure: its owner drains, and its group is the shops'.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

SUFFIXES = ("", "-wal", "-shm", ".turn", ".daemon", ".drainers")
"""The database's own file, and what SQLite and the locks put beside it."""

LEAST_ROOM = 64 * 1024 * 1024  # bytes
LEAST_FILES = 16

SHARED = stat.S_IRWXG | stat.S_ISGID


class Fault(NamedTuple):
    """Something that is wrong with the place, and what mends it: a command, or what is to be done.

    `what` is place, rights, owner or disk.
    """

    what: str
    told: str
    mend: str


def files(path: Path) -> list[Path]:
    """All that belongs to the outbox at `path`, there already or not."""
    return [Path(f"{os.path.realpath(path)}{suffix}") for suffix in SUFFIXES]


def is_among(path: Path, needed: Iterable[Path]) -> bool:
    """Whether `path` is one of the files `needed`, by whatever name; opened as another it may be lost."""
    return any(_is_same(path, each) for each in needed)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there, or cannot be looked at
        return os.path.realpath(one) == os.path.realpath(other)


def target(path: Path) -> Path | None:
    """Where a file that is put at `path` comes to lie, links followed; None if what is there is no file.

    A new name replaces whatever has it: a device, a pipe, or a link instead of what that leads to.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
    except OSError:  # nothing is there, or whoever writes to it will be told what keeps him from it
        pass
    return Path(os.path.realpath(path))


def faults(path: Path) -> list[Fault]:
    """What is wrong around the outbox at `path`. It need not be there yet."""
    path = Path(os.path.realpath(path))
    if (fault := impossible(path)) is not None:
        return [fault]
    try:
        directory = path.parent.stat()
    except OSError:
        return []
    if (fault := read_only(path.parent)) is not None:
        return [fault]
    return [
        *_directory(path.parent, directory),
        *(fault for suffix in SUFFIXES for fault in _file(Path(f"{path}{suffix}"), directory, suffix)),
        *_room(path.parent),
    ]


def impossible(path: Path) -> Fault | None:
    """No outbox can lie at `path`, whoever comes."""
    path = Path(os.path.realpath(path))
    directory = path.parent
    try:
        found = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        mend = f"sudo install -d -m 2770 -o outboxd -g outboxd {quote(str(directory))}"
        return Fault("place", f"the directory {directory} does not exist", mend)
    except OSError:
        return None  # this user may not look there
    if not stat.S_ISDIR(found.st_mode):
        mend = f"name a place in a directory with `database:`, such as {directory.parent / 'outbox.db'}"
        return Fault("place", f"{directory} is a file", mend)
    if os.path.isdir(path):
        mend = f"name a file in it with `database:`, such as {path / 'outbox.db'}"
        return Fault("place", f"{path} is a directory", mend)
    if os.path.exists(path) and not os.path.isfile(path):  # a device, whose rights are not ours to mend
        return Fault("place", f"{path} is no regular file", "name another with `database:`")
    return None


def in_the_way(path: Path) -> Fault | None:
    """What of the outbox at `path` this user cannot read and write, and all that mends it."""
    named, path = path, Path(os.path.realpath(path))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        barrier = _barrier(path.parent)
        try:
            mend = _admission(barrier.stat())
        except OSError:  # links without an end
            mend = f"look: ls -ld {quote(str(barrier))}"
        return Fault("rights", f"this user may not write to {named} and its directory", mend)
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{path}{suffix}")
        if not file.exists() or os.access(file, os.R_OK | os.W_OK):
            continue
        mends = [fault.mend for fault in _file(file, path.parent.stat(), suffix)]
        return Fault("rights", f"this user may not read and write {file}", " && ".join(mends))
    return None


def _barrier(directory: Path) -> Path:
    """The first directory on the way to this one that keeps this user out; itself if he comes so far."""
    while not os.access(directory.parent, os.X_OK):
        directory = directory.parent
    return directory


def read_only(directory: Path) -> Fault | None:
    """The file system takes no writes, whoever comes."""
    if not os.statvfs(directory).f_flag & os.ST_RDONLY:
        return None
    told = f"the file system of {directory} is read-only; see why with: sudo dmesg | tail"
    return Fault("disk", told, f"sudo mount -o remount,rw {quote(str(_mount(directory.resolve())))}")


def _mount(directory: Path) -> Path:
    while not directory.is_mount():
        directory = directory.parent
    return directory


def _directory(path: Path, found: os.stat_result) -> Iterator[Fault]:
    mode, at = stat.S_IMODE(found.st_mode), quote(str(path))
    if mode & stat.S_IWOTH:
        yield Fault("rights", f"{path} is writable by everyone (mode {mode:04o})", f"sudo chmod o-w {at}")
    if mode & stat.S_IWGRP and mode & SHARED != SHARED:
        told = f"{path} is shared with a group, but does not hand its files to it (mode {mode:04o})"
        yield Fault("rights", told, f"sudo chmod g=rwxs {at}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Fault("rights", f"this user may not write to {path}", _admission(found))


def _file(path: Path, directory: os.stat_result, suffix: str) -> Iterator[Fault]:
    try:
        found = path.stat()
    except OSError:
        return  # not there; or its directory is closed to us, which is told already
    mode, at = stat.S_IMODE(found.st_mode), quote(str(path))
    is_shared = bool(directory.st_mode & stat.S_IWGRP)
    # Whoever comes first makes the files beside the database, so in a shared directory they are anybody's.
    is_foreign = found.st_uid != directory.st_uid and not (suffix and is_shared)
    if is_foreign and directory.st_uid != 0:
        owner, ours = _user(found.st_uid), _user(directory.st_uid)
        told = f"{path} belongs to {owner}, its directory to {ours}"
        yield Fault("owner", told, f"sudo chown {ours} {at}")
    if is_shared and found.st_gid != directory.st_gid:
        told = f"{path} has another group than its directory"
        yield Fault("rights", told, f"sudo chgrp {_group(directory.st_gid)} {at}")
    if mode & stat.S_IRWXO:
        yield Fault("rights", f"{path} is open to everyone (mode {mode:04o})", f"sudo chmod o= {at}")
    wanted, whose = (0o660, "its owner and its group") if is_shared else (0o600, "its owner")
    if mode & wanted != wanted:
        told = f"{path} cannot be read and written by {whose} (mode {mode:04o})"
        yield Fault("rights", told, f"sudo chmod {'ug' if is_shared else 'u'}+rw {at}")
    elif not is_foreign and not os.access(path, os.R_OK | os.W_OK):
        yield Fault("rights", f"this user may not read and write {path}", _admission(directory))


def _room(directory: Path) -> Iterator[Fault]:
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if found.f_blocks and free < LEAST_ROOM:
        told = f"the disk is full: {free // 1024} KiB are left at {directory}; soon no event can be written"
        mend = f"sudo journalctl --vacuum-size=100M, or remove what this finds: {_largest(directory)}"
        yield Fault("disk", told, mend)
    if found.f_files and found.f_favail < LEAST_FILES:
        told = f"the disk takes no more files at {directory}, and SQLite needs two beside the outbox"
        yield Fault("disk", told, f"remove what this finds: {_largest(directory, '--inodes')}")


def is_full(directory: str) -> bool:
    """Whether there is no room for what SQLite needs to open a file: it calls that an I/O error."""
    found = os.statvfs(directory)
    return bool(found.f_blocks) and found.f_bavail * found.f_frsize < 128 * 1024


def _largest(directory: Path, *options: str) -> str:
    return " ".join(["sudo du -x", *options, f"{quote(str(_mount(directory)))} | sort -n | tail"])


def _admission(directory: os.stat_result) -> str:
    """How this user gets in: by the group, where there is one to join."""
    if directory.st_mode & stat.S_IWGRP:
        return f"sudo usermod -aG {_group(directory.st_gid)} {_user(os.geteuid())}, then log in again"
    return f"be the one it belongs to: sudo -u {_user(directory.st_uid)} outboxd …"


def _user(number: int) -> str:
    import pwd  # where all is well, nobody is named

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
