"""`check` on a key that does not open the account: whose fault it is, and the command that mends it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from outboxd import cli
from outboxd.brevo.sandbox import Fault
from tests.shop import KEY, Shop

WRONG = "xkeysib-wrong"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("BREVO_API_KEY", KEY)


def fault(shop: Shop, directory: Path, list_id: int | None = None, **brevo: Any) -> tuple[str, str, str]:
    """The one thing that is wrong: what, told, and its mend."""
    path = directory / "config.yaml"
    skill = {"options": {} if list_id is None else {"list_id": list_id}}
    settings = {
        "database": str(shop.path),
        "skills": {"customer-sync": skill},
        "brevo": {"base_url": shop.sandbox.url, **brevo},
    }
    path.write_text(json.dumps(settings))
    output = (
        CliRunner()
        .invoke(cli.group, ["check", "--json", "--config", str(path)], standalone_mode=False)
        .output
    )
    assert WRONG not in output
    assert KEY not in output
    [found] = [check for check in json.loads(output)["checks"] if not check["is_well"]]
    return found["what"], found["told"], found["hint"]


def test_no_key_a_wrong_one_and_a_foreign_address_are_three_texts(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BREVO_API_KEY")
    missing = fault(shop, tmp_path)
    monkeypatch.setenv("BREVO_API_KEY", WRONG)
    wrong = fault(shop, tmp_path)
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    shop.sandbox.faults.add(Fault(behaviour="unrecognised_ip"))
    address = fault(shop, tmp_path)
    assert [each[0] for each in (missing, wrong, address)] == ["API key", "API key", "IP address"]
    assert "BREVO_API_KEY is not set" in missing[1]
    assert "does not know this API key" in wrong[1]
    assert "does not accept this host's IP address" in address[1]
    assert wrong[2] == "export BREVO_API_KEY=xkeysib-…"
    assert address[2].startswith("add 127.0.0.1 at https://app.brevo.com/security/authorised_ips")


def test_a_wrong_key_is_replaced_where_it_was_found(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "the key").write_text(WRONG)
    mend = fault(shop, tmp_path, api_key_file=str(tmp_path / "the key"))[2]
    assert mend.startswith(f"sudo tee '{tmp_path}/the key' > /dev/null")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    mend = fault(shop, tmp_path, api_key_credential="the key")[2]
    assert mend.startswith("sudo tee '/etc/outboxd/the key' > /dev/null")
    assert mend.endswith("sudo systemctl restart outboxd")


def test_a_credential_that_systemd_did_not_hand_over_is_read_by_hand(shop: Shop, tmp_path: Path) -> None:
    mend = fault(shop, tmp_path, api_key_credential="brevo-api-key")[2]
    assert "sudo CREDENTIALS_DIRECTORY=/etc/outboxd outboxd " in mend


@pytest.mark.parametrize(
    ("status", "told", "mend"),
    [
        (402, "no credit left", "app.brevo.com"),
        (403, "forbids this account", "app.brevo.com"),
        (429, "", "wait a minute"),
        (503, "", "curl -sSI http://127.0.0.1"),
    ],
)
def test_what_is_not_the_keys_fault_is_not_called_so(
    shop: Shop, tmp_path: Path, status: int, told: str, mend: str
) -> None:
    shop.sandbox.faults.add(Fault(status=status))
    found = fault(shop, tmp_path)
    assert found[0] == "Brevo"
    assert told in found[1]
    assert mend in found[2]


def test_an_account_that_cannot_be_reached_is_told_with_what_looks_there(shop: Shop, tmp_path: Path) -> None:
    what, _, mend = fault(shop, tmp_path, base_url="http://127.0.0.1:9/v3")
    assert what == "Brevo"
    assert mend == "see what answers there: curl -sSI http://127.0.0.1:9/v3"


def test_a_base_url_that_leads_nowhere_is_named(shop: Shop, tmp_path: Path) -> None:
    what, told, mend = fault(shop, tmp_path, base_url=f"{shop.sandbox.url}/v3")
    assert what == "Brevo"
    assert "check brevo.base_url" in told
    assert mend == f"see what answers there: curl -sSI {shop.sandbox.url}/v3"


@pytest.mark.parametrize(
    ("body", "what"), [("<html>Not here</html>", "Brevo"), ({"code": "document_not_found"}, "list")]
)
def test_a_list_is_said_to_be_missing_only_where_brevo_says_so(
    shop: Shop, tmp_path: Path, body: object, what: str
) -> None:
    shop.sandbox.faults.add(Fault(status=404, path="/contacts/lists/*", body=body))
    assert fault(shop, tmp_path, list_id=1)[0] == what
