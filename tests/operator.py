"""The operator at a shop: commands of `outboxd`, run in this process with a configuration of their own."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outboxd import cli
from outboxd.errors import OutboxdError
from tests.shop import KEY, Shop

Operate = Callable[..., Result]


def operator(shop: Shop, directory: Path, patch: pytest.MonkeyPatch, **sync: Any) -> Operate:
    """Runs commands as the user `olga`; `sync` are the settings of the skill."""
    path = directory / "config.yaml"
    brevo = {"base_url": shop.sandbox.url}
    path.write_text(
        json.dumps({"database": str(shop.path), "brevo": brevo, "skills": {"customer-sync": sync}})
    )
    return operator_at(path, patch)


def operator_at(config: Path, patch: pytest.MonkeyPatch) -> Operate:
    """Runs commands as the user `olga`, with the configuration at `config`."""
    patch.setenv("BREVO_API_KEY", KEY)
    patch.setenv("SUDO_USER", "olga")

    def operate(command: str, *arguments: str, **options: Any) -> Result:
        given = [command, "--config", str(config), *arguments]
        result = CliRunner().invoke(cli.group, given, standalone_mode=False, **options)
        error = result.exception
        assert error is None or isinstance(error, OutboxdError | SystemExit), error
        return result

    return operate


def exit_code(result: Result) -> int:
    """What the process would end with."""
    error = result.exception
    return error.exit_code if isinstance(error, OutboxdError) else int(result.return_value or 0)


def told(result: Result) -> Any:
    """What `--json` said."""
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def words(caplog: pytest.LogCaptureFixture) -> str:
    """Everything that was logged here, at every level."""
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.DEBUG)
