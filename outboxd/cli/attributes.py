"""`attributes`: the mapping and the account side by side, and the means to make them agree."""

import json
import os
from pathlib import Path
from typing import Any

import click

from outboxd import app, config
from outboxd.brevo import answers, catalogue
from outboxd.brevo.client import Brevo
from outboxd.cli.consent import ask
from outboxd.cli.options import config_option, json_option
from outboxd.cli.table import print_table
from outboxd.errors import BrevoError
from outboxd.event import Attribute
from outboxd.mapping import type_of


@click.command()
@config_option
@json_option
@click.option("--create", is_flag=True, help="Make the attributes that the mapping names and Brevo lacks.")
@click.option("--yes", is_flag=True, help="Make them without asking.")
def attributes(config_path: Path, as_json: bool, create: bool, yes: bool) -> int:
    """Compare the mapping with the attributes that the Brevo account has.

    Brevo drops what it has no attribute for without a word. --create makes what is missing, after showing
    it: numbers for totals, dates for days, true or false for consent, text for everything else.

    \b
    Examples:
      outboxd attributes
      outboxd attributes --create

    Exit codes: 0 Brevo has all of them; 1 some are missing, or the answer was no; 69 Brevo is out of reach
    or refuses the key.
    """
    settings = config.read(config_path)
    account = app.brevo(settings, config.api_key(settings.brevo, os.environ))
    rows = _side_by_side(settings.field_mapping, _known(account))
    if not as_json:
        print_table(("field", "attribute", "in_brevo", "to_be_made"), rows)
    wanted = [Attribute(row["attribute"], row["to_be_made"]) for row in _missing(rows)] if create else []
    if wanted:
        named = ", ".join(f"{each.name} ({each.type})" for each in wanted)
        if not yes:
            ask(f"Make in Brevo: {named}?")
        for each in wanted:
            _make(account, each)
        rows = _side_by_side(settings.field_mapping, _known(account))
        if not as_json:
            left = ", ".join(row["attribute"] for row in _missing(rows))
            click.echo(f"made: {named}")
            click.echo(f"Brevo still lacks {left}" if left else "Brevo has all of them now")
    if as_json:
        made = {each.name for each in wanted}
        click.echo(json.dumps([{**row, "made": row["attribute"] in made} for row in rows], indent=2))
    return 1 if _missing(rows) else 0


def _missing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["in_brevo"] is None]


def _side_by_side(rules: Any, known: dict[str, Attribute]) -> list[dict[str, Any]]:
    return [
        {
            "field": name,
            "attribute": attribute,
            "in_brevo": (known[attribute].type or "calculated") if attribute in known else None,
            "to_be_made": None if attribute in known else type_of(name),
        }
        for name, attribute in rules.items()
        if name != "email"
    ]


def _known(account: Brevo) -> dict[str, Attribute]:
    answer = account.list_attributes()
    if not answer.is_success:
        raise BrevoError(str(answers.outcome(answer).detail), hint="see: outboxd check")
    return catalogue.read(answer.body)


def _make(account: Brevo, attribute: Attribute) -> None:
    answer = account.make_attribute(attribute)
    if not answer.is_success and "unique" not in answer.message:
        detail = answers.outcome(answer).detail
        raise BrevoError(f"Brevo did not make {attribute.name}: {detail}", hint="make it in Brevo by hand")
