"""`dead`, `retry` and `drop`: look through dead letters, try them again, or end them for good."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from outboxd import app, clock, config, database, report
from outboxd.causes import Group, Letter, group_id, grouped
from outboxd.cli.consent import ask
from outboxd.cli.figures import counted
from outboxd.cli.operator import operator
from outboxd.cli.options import EVENT_ID, config_option, json_option
from outboxd.cli.table import print_table
from outboxd.config import Config
from outboxd.errors import NoOutboxError


@click.command()
@config_option
@json_option
@click.option("--by", type=click.Choice(["reason"]), help="Group them by cause.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
def dead(config_path: Path, as_json: bool, by: str | None, limit: int) -> int:
    """List dead letters, newest first, or their causes, the most frequent first.

    A cause is a reason without ids and numbers. The id of its group is what `outboxd retry` and
    `outboxd drop` take; it stays the same.

    \b
    Examples:
      outboxd dead --limit 100
      outboxd dead --by reason
      outboxd retry --group 5ac1f3d0 --dry-run

    Exit codes: 0 listed; 66 there is no outbox.
    """
    settings = config.read(config_path)
    if by == "reason":
        groups = grouped(_letters(settings))
        told = [_facts(group) for group in groups[:limit]]
        columns: tuple[str, ...] = ("group", "count", "oldest_at", "newest_at", "example", "cause")
    else:
        with database.reading(settings.database) as connection:
            rows = report.events(connection, status="dead", limit=limit)
        told = [{**row, "group": group_id(row["last_error"])} for row in rows]
        columns = ("id", "event", "customer_key", "attempts", "finished_at", "group", "last_error")
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        print_table(columns, told)
    return 0


@click.command()
@config_option
@json_option
@click.option("--dead", is_flag=True, help="Every dead letter.")
@click.option("--group", metavar="ID", help="Those of one cause: see outboxd dead --by reason.")
@click.option("--dry-run", is_flag=True, help="Only tell which they are.")
@click.argument("event_ids", metavar="[ID]...", type=EVENT_ID, nargs=-1)
def retry(
    config_path: Path, as_json: bool, dead: bool, group: str | None, dry_run: bool, event_ids: tuple[int, ...]
) -> int:
    """Try dead letters again, with all their attempts before them.

    \b
    Examples:
      outboxd retry 17 18
      outboxd retry --group 5ac1f3d0 --dry-run
      outboxd retry --dead

    Exit codes: 0 all of them wait for delivery; 1 some were not dead; 2 nothing was named; 66 no such group.
    """
    if dead + bool(group) + bool(event_ids) != 1:
        raise click.UsageError("name the events' ids, or a --group, or say --dead for all dead letters")
    settings = config.read(config_path)
    chosen, left = _chosen(settings, group, None if dead else event_ids)
    if dry_run:
        _preview("would be tried again", chosen, left, as_json=as_json)
        return 1 if left else 0
    wanted = [letter[0] for letter in chosen]
    with closing(app.outbox(settings)) as outbox:
        revived = outbox.revive(wanted, clock.wall())
    return _told("retried", revived, [*left, *set(wanted).difference(revived)], as_json=as_json)


@click.command()
@config_option
@json_option
@click.option("--group", metavar="ID", help="Those of one cause: see outboxd dead --by reason.")
@click.option("--dry-run", is_flag=True, help="Only tell which they are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("event_ids", metavar="[ID]...", type=EVENT_ID, nargs=-1)
def drop(
    config_path: Path, as_json: bool, group: str | None, dry_run: bool, yes: bool, event_ids: tuple[int, ...]
) -> int:
    """End dead letters for good: they are no longer counted as dead, and nothing tries them again.

    They stay in the outbox as `dropped`, with their reason, who dropped them, and their payload, until they
    are pruned: see `outboxd events --dropped`.

    \b
    Examples:
      outboxd drop --group 5ac1f3d0 --dry-run
      outboxd drop 17 18 --yes

    Exit codes: 0 all of them are dropped; 1 some were not dead, or the answer was no; 2 nothing was named;
    66 no such group.
    """
    if bool(group) == bool(event_ids):
        raise click.UsageError("name the events' ids, or a --group")
    settings = config.read(config_path)
    chosen, left = _chosen(settings, group, event_ids)
    if dry_run:
        _preview("would be dropped", chosen, left, as_json=as_json)
        return 1 if left else 0
    if chosen and not yes:
        ask(f"Drop {counted(len(chosen), 'dead letter')} for good?")
    wanted = [letter[0] for letter in chosen]
    with closing(app.outbox(settings)) as outbox:
        dropped = outbox.drop(wanted, operator(), clock.wall())
    return _told("dropped", dropped, [*left, *set(wanted).difference(dropped)], as_json=as_json)


def _letters(settings: Config) -> list[Letter]:
    with database.reading(settings.database) as connection:
        return report.dead_letters(connection)


def _chosen(
    settings: Config, group: str | None, event_ids: Sequence[int] | None
) -> tuple[list[Letter], list[int]]:
    """The dead letters that are meant, None being all; and the ids among those named that are not dead."""
    letters = _letters(settings)
    if group is not None:
        chosen = [letter for letter in letters if group_id(letter[1]) == group.lower()]
        if not chosen:
            raise NoOutboxError(
                f"there is no group {group} of dead letters", hint="see: outboxd dead --by reason"
            )
        return chosen, []
    if event_ids is None:
        return letters, []
    known = {letter[0]: letter for letter in letters}
    wanted = sorted(set(event_ids))
    return [known[id_] for id_ in wanted if id_ in known], [id_ for id_ in wanted if id_ not in known]


def _preview(what: str, chosen: Sequence[Letter], left: Sequence[int], *, as_json: bool) -> None:
    groups = [_facts(group) for group in grouped(chosen)]
    if as_json:
        ids = [letter[0] for letter in chosen]
        click.echo(json.dumps({"dry_run": True, "events": ids, "not_dead": left, "groups": groups}))
        return
    click.echo(f"{counted(len(chosen), 'dead letter')} {what}")
    if groups:
        print_table(("group", "count", "example", "cause"), groups)
    _tell_left(left)


def _told(what: str, done: Sequence[int], left: Sequence[int], *, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({what: sorted(done), "not_dead": sorted(left)}))
    else:
        told = "to be delivered again" if what == "retried" else what
        click.echo(f"{counted(len(done), 'dead letter')} {told}")
        _tell_left(left)
    return 1 if left else 0


def _tell_left(left: Sequence[int]) -> None:
    for event_id in sorted(left):
        click.echo(f"outboxd: event {event_id} is no dead letter: left as it is", err=True)


def _facts(group: Group) -> dict[str, Any]:
    return {
        "group": group.id,
        "count": len(group.event_ids),
        "oldest_at": group.oldest_at,
        "newest_at": group.newest_at,
        "example": group.event_ids[-1],
        "cause": group.cause,
    }
