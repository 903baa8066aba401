"""`check`: is everything in place? Each fault with the command or the setting that mends it."""

import json
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import click

from outboxd import app, clock, config, database, place, report, textfile
from outboxd.brevo import answers, catalogue
from outboxd.brevo.answers import Answer
from outboxd.brevo.client import Brevo
from outboxd.cli import host, refusal
from outboxd.cli.figures import counted
from outboxd.cli.options import config_option, json_option
from outboxd.config import Config
from outboxd.errors import ConfigError, OutboxdError
from outboxd.rules import CANONICAL, canonical, is_path


class Finding(NamedTuple):
    """One thing that was looked at; a warning is well enough, and worth a look."""

    what: str
    is_well: bool
    told: str
    hint: str | None = None
    is_warning: bool = False

    @property
    def mark(self) -> str:
        """How the line begins."""
        return "warn" if self.is_warning else "ok  " if self.is_well else "FAIL"


@click.command()
@config_option
@json_option
@click.option("--offline", is_flag=True, help="Do not call Brevo.")
def check(config_path: Path, as_json: bool, offline: bool) -> int:
    """Check the configuration, the place and rights of the outbox and of the metrics' file, the secrets, the
    mapping, and what Brevo has of it.

    \b
    Example:
      outboxd check --config /etc/outboxd/config.yaml

    Exit codes: 0 all is well; 1 something is not.
    """
    findings = list(_findings(config_path, offline=offline))
    is_well = all(finding.is_well for finding in findings)
    if as_json:
        click.echo(
            json.dumps({"ok": is_well, "checks": [finding._asdict() for finding in findings]}, indent=2)
        )
        return 0 if is_well else 1
    for finding in findings:
        click.echo(f"{finding.mark}  {finding.what}: {finding.told}")
        if finding.hint and (finding.is_warning or not finding.is_well):
            click.echo(f"      mend it: {finding.hint}")
    return 0 if is_well else 1


def _findings(config_path: Path, *, offline: bool) -> Iterator[Finding]:
    try:
        settings = config.read(config_path)
    except ConfigError as error:
        for number, fault in enumerate(error.faults, start=1):
            is_last = number == len(error.faults)
            yield Finding("configuration", False, fault, error.hint if is_last else None)
        return
    yield Finding("configuration", True, str(config_path))
    yield from _mapping(settings)
    yield from _place(settings)
    yield from _database(settings)
    yield from _webhook(settings)
    yield from _textfile(settings, config_path)
    if offline:
        return
    try:
        key = config.api_key(settings.brevo, os.environ)
    except OutboxdError as error:
        yield Finding("API key", False, str(error), error.hint or config.storing(settings.brevo))
        return
    yield from _account(settings, app.brevo(settings, key))


def _mapping(settings: Config) -> Iterator[Finding]:
    """A field that outboxd does not know may be one of the payload's, or misspelt and never sent."""
    for name in settings.field_mapping:
        if name == "email" or is_path(name) or canonical(name) in CANONICAL:
            continue
        near = get_close_matches(canonical(name), sorted(CANONICAL), n=1, cutoff=0.8)
        if near:
            told = f"{name} is looked for in payloads just as it is written; did you mean {near[0]}?"
            yield Finding("mapping", True, told, is_warning=True)


def _place(settings: Config) -> Iterator[Finding]:
    found = place.faults(settings.database)
    for fault in found:
        yield Finding(fault.what, False, fault.told, fault.mend)
    if not found:
        directory = place.files(settings.database)[0].parent
        yield Finding("place", True, f"rights, owner and room of {directory} are in order")


def _database(settings: Config) -> Iterator[Finding]:
    if place.impossible(settings.database) is not None:
        return  # it is told
    try:
        with database.reading(settings.database) as connection:
            found = database.revision(connection)
            database.check_revision(settings.database, found)
            facts = report.status(connection, clock.wall(), enabled=settings.enabled)
    except OutboxdError as error:
        yield Finding("database", False, str(error), error.hint)
        return
    yield Finding("database", True, f"{settings.database}, schema {found}")
    if (trouble := host.facts(settings.database)["trouble"]) is not None:
        yield Finding("daemon", False, f"{trouble['reason']} (since {trouble['since']})", trouble["hint"])
    for warning in facts["warnings"]:
        told = f"{warning['warning']} ({counted(warning['count'], 'time')}, last at {warning['last_at']})"
        yield Finding("warning", True, told, is_warning=True)


def _webhook(settings: Config) -> Iterator[Finding]:
    if settings.notifications.webhook_url is None:
        return
    try:
        secret = config.webhook_secret(settings.notifications, os.environ)
    except OutboxdError as error:
        yield Finding("webhook", False, str(error), error.hint)
        return
    if secret is None:
        told = "what is posted is not signed, so anybody can post the like"
        yield Finding("webhook", True, told, "set notifications.secret_env", is_warning=True)
    else:
        yield Finding("webhook", True, "what is posted is signed")


def _textfile(settings: Config, config_path: Path) -> Iterator[Finding]:
    if (path := settings.metrics.textfile) is None:
        return
    try:
        textfile.check(path, needed=config.files(config_path, settings))
    except OutboxdError as error:
        yield Finding("metrics", False, str(error), error.hint)
    else:
        yield Finding("metrics", True, f"{path} can be written")


def _account(settings: Config, account: Brevo) -> Iterator[Finding]:
    answer = account.list_attributes()
    if not answer.is_success:
        yield _refused(answer, settings)
        return
    yield Finding("API key", True, f"accepted by {settings.brevo.base_url}")
    wanted = {a for name, a in settings.field_mapping.items() if name != "email"}
    missing = sorted(wanted - set(catalogue.read(answer.body)))
    if missing:
        yield Finding(
            "attributes",
            False,
            f"Brevo lacks {', '.join(missing)}, and would drop them without a word",
            "outboxd attributes --create",
        )
    else:
        yield Finding("attributes", True, f"Brevo has all {len(wanted)} that the mapping names")
    if settings.list_id is None:
        told = "none is set, and Brevo's imports need one: new contacts go one by one, ten a second"
        yield Finding("list", True, told, "set options.list_id", is_warning=True)
    else:
        answer = account.list_(settings.list_id)
        told = f"list {settings.list_id}"
        if answer.is_success:
            yield Finding("list", True, f"{told} is there")
        elif answer.status not in (400, 404):
            yield _refused(answer, settings)
        else:
            yield Finding(
                "list", False, f"Brevo has no {told}", "set options.list_id to the id of one it has"
            )


def _refused(answer: Answer, settings: Config) -> Finding:
    told = str(answers.outcome(answer).detail)
    return Finding(refusal.subject(answer), False, told, refusal.mend(answer, settings.brevo))
