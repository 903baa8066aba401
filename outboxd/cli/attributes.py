"""`attributes`: the mapping and the account side by side, and the means to make them agree."""

import json
import os
from pathlib import Path
from typing import Any

import click

from outboxd import app, config
from outboxd.brevo import answers, catalogue
from outboxd.brevo.client import Brevo
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

    Exit codes: 0 Brevo has all of them; 1 some are missing; 69 Brevo is out of reach or refuses the key.
    """
    settings = config.read(config_path)
    account = app.brevo(settings, config.api_key(settings.brevo, os.environ))
    rows = _side_by_side(settings.field_mapping, _known(account))
    missing = [row for row in rows if row["in_brevo"] is None]
    if not as_json:
        print_table(("field", "attribute", "in_brevo", "to_be_made"), rows)
    if create and missing:
        if not yes and not as_json:
            click.confirm(f"Make {len(missing)} attributes in Brevo?", abort=True, err=True)
        for row in missing:
            _make(account, Attribute(row["attribute"], row["to_be_made"]))
        rows = _side_by_side(settings.field_mapping, _known(account))
        missing = [row for row in rows if row["in_brevo"] is None]
        if not as_json:
            click.echo("made: Brevo has all of them now")
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    return 1 if missing else 0


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
