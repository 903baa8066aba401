"""The configuration: as the specification writes it, every fault at once, each with its place."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from outboxd import config
from outboxd.config import BrevoSettings, Config, kinds
from outboxd.config.document import load
from outboxd.config.kinds import FaultError
from outboxd.config.settings import parse
from outboxd.errors import EX_CONFIG, ConfigError

BASIC = """
skills:
  customer-sync:
    enabled: true
    source: shopify  # or woocommerce, magento, custom
    # Map platform fields to Brevo attributes
    field_mapping:
      email: email
      firstName: FIRSTNAME
      lastName: LASTNAME
      phone: SMS
    # Sync options
    options:
      sync_mode: realtime  # or batch
      delete_behavior: soft  # or hard
      list_id: 5  # Add to this list
"""

CUSTOM = """
skills:
  customer-sync:
    field_mapping:
      # Standard fields
      email: email
      firstName: FIRSTNAME
      # Custom e-commerce attributes
      totalOrders: TOTAL_ORDERS
      totalSpent: TOTAL_SPENT
      lastOrderDate: LAST_ORDER_DATE
      customerTier: CUSTOMER_TIER
      tags: TAGS
"""

DEBUG = """
skills:
  customer-sync:
    debug: true
    log_level: verbose
"""

SCRIPT = """
skills:
  customerSync:
    source: shopify
    fieldMapping: {email: email, firstName: FIRSTNAME, lastName: LASTNAME, totalOrders: TOTAL_ORDERS}
    options: {syncMode: realtime, listId: 5, updateEnabled: true, deleteBehavior: hard}
"""


def parsed(text: str) -> Config:
    return parse(load(text, "config.yaml"))


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert caught.value.exit_code == EX_CONFIG == 78
    return caught.value.faults


def in_options(line: str) -> str:
    return f"skills:\n  customer-sync:\n    options:\n      {line}\n"


# As the specification writes it


def test_the_basic_setup_of_the_specification_loads() -> None:
    told = parsed(BASIC)
    assert (told.enabled, told.source, told.sync_mode) == (True, "shopify", "realtime")
    assert (told.delete_behavior, told.list_id, told.update_enabled) == ("soft", 5, True)
    assert told.field_mapping == {
        "email": "email",
        "firstName": "FIRSTNAME",
        "lastName": "LASTNAME",
        "phone": "SMS",
    }


def test_its_custom_attributes_load() -> None:
    assert parsed(CUSTOM).field_mapping["lastOrderDate"] == "LAST_ORDER_DATE"


def test_its_debug_mode_loads() -> None:
    assert parsed(DEBUG).log_level == "verbose"
    assert parsed(DEBUG.replace("log_level: verbose", "")).log_level == "verbose"


def test_its_names_in_camel_case_are_the_same_settings() -> None:
    snake = SCRIPT.replace("customerSync", "customer_sync").replace("fieldMapping", "field_mapping")
    for camel in ("syncMode", "listId", "updateEnabled", "deleteBehavior"):
        snake = snake.replace(camel, "".join(f"_{c.lower()}" if c.isupper() else c for c in camel))
    assert parsed(SCRIPT) == parsed(snake)
    assert (parsed(SCRIPT).list_id, parsed(SCRIPT).delete_behavior) == (5, "hard")
    assert parsed(SCRIPT.replace("firstName", "first_name")) == parsed(SCRIPT)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "skills:\n", "brevo: {}\nretry: ~\n"])
def test_an_empty_configuration_is_all_defaults(text: str) -> None:
    told = parsed(text)
    assert told == config.from_mapping({}, "a program")
    assert told.brevo == BrevoSettings()
    assert (told.retry.max_attempts, told.retry.cap) == (20, timedelta(hours=1))


def test_every_other_setting_is_taken() -> None:
    text = """
        database: /srv/outbox.db
        brevo: {base_url: "http://127.0.0.1:8765/v3/", timeout_seconds: 2.5, workers: 3,
                requests_per_second: 20, requestsPerHour: 72000, api_key_env: KEY}
        retry: {max_attempts: 7, first_seconds: 1, cap_seconds: 90, jitter: 0.5}
    """
    told = parsed(text)
    assert told.database == Path("/srv/outbox.db")
    assert (told.brevo.base_url, told.brevo.timeout) == ("http://127.0.0.1:8765/v3", timedelta(seconds=2.5))
    assert (told.brevo.workers, told.brevo.requests_per_second) == (3, 20)
    assert (told.brevo.requests_per_hour, told.brevo.api_key_env) == (72_000, "KEY")
    assert (told.retry.max_attempts, told.retry.first, told.retry.jitter) == (7, timedelta(seconds=1), 0.5)


def test_relative_paths_are_beside_the_file_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
database: data/outbox.db
brevo: {api_key_file: brevo.key}
notifications: {secret_file: ../webhook.secret}
metrics: {textfile: /var/lib/node_exporter/outboxd.prom}
""")
    told = config.read(path)
    assert told.database == tmp_path / "data" / "outbox.db"
    assert told.brevo.api_key_file == tmp_path / "brevo.key"
    assert told.notifications.secret_file == tmp_path / ".." / "webhook.secret"
    assert told.metrics.textfile == Path("/var/lib/node_exporter/outboxd.prom")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_of_windows_is_read_as_well(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes((mark + BASIC.replace("\n", "\r\n")).encode())
    assert config.read(path)._replace(database=parsed("").database) == parsed(BASIC)


@pytest.mark.parametrize("content", [None, b"skills: \xff"], ids=["missing", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        config.read(path)


def test_a_configuration_does_not_show_the_webhooks_secret() -> None:
    secret = "whsec_" + "c2VjcmV0" * 4
    told = parsed(f"notifications: {{webhook_url: 'https://shop.example/hook', secret: {secret}}}")
    assert told.notifications.secret == b"secret" * 4
    assert "https://shop.example/hook" in repr(told)
    assert "secretsecret" not in repr(told)


# Faults


def test_every_fault_is_told_at_once_with_its_line_and_the_nearest_name() -> None:
    text = """\
databse: outbox.db
skills:
  customer-sync:
    enabled: maybe
    source: shopfy
    options:
      list_idd: 5
      delete_behavior: sof
    field_maping: {}
brevo:
  workers: 0
  base_url: http://example.com
retry:
  jitter: 2
"""
    told = faults(text)
    assert len(told) == 9
    for line, words in {
        1: "databse: no such setting; did you mean database?",
        4: "skills.customer-sync.enabled: must be true or false",
        5: "skills.customer-sync.source: must be shopify, woocommerce, magento or custom; did you mean",
        7: "skills.customer-sync.options.list_idd: no such setting; did you mean list_id?",
        8: "skills.customer-sync.options.delete_behavior: must be soft or hard; did you mean soft?",
        9: "skills.customer-sync.field_maping: no such setting; did you mean field_mapping?",
        11: "brevo.workers: must be a whole number from 1 to",
        12: "brevo.base_url: must begin with https://",
        14: "retry.jitter: must be a number from 0 to 1",
    }.items():
        assert any(fault.startswith(f"config.yaml:{line}: {words}") for fault in told), (line, told)


@pytest.mark.parametrize("name", ["customer-sync", "customer_sync", "customerSync"])
def test_a_fault_has_its_line_however_the_sections_are_spelt(name: str) -> None:
    told = faults(f"skills:\n  {name}:\n    options:\n      listIdd: 5\n")
    assert told == [f"config.yaml:4: skills.{name}.options.listIdd: no such setting; did you mean list_id?"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("updateEnabled: true", "1: updateEnabled: no such setting here; it belongs in SKILL.options"),
        ("skills: {customer-sync: {updateEnabled: true}}", "it belongs in SKILL.options"),
        ("skills: {customer-sync: {options: {debug: true}}}", "it belongs in SKILL"),
        ("list_id: 5", "it belongs in SKILL.options"),
        ("customer-sync: {enabled: true}", "it belongs in skills"),
        ("skills: {customer-sync: {notifications: {}}}", "it belongs at the top"),
        ("interval_seconds: 5", "it belongs in notifications or in metrics"),
    ],
)
def test_a_setting_in_the_wrong_section_is_told_where_it_belongs(text: str, told: str) -> None:
    """The nearest name would be no help: `updateEnabled` is near to `enabled`."""
    (fault,) = faults(text)
    assert fault.endswith(told.replace("SKILL", "skills.customer-sync"))


@pytest.mark.parametrize("written", ["email", "EMAIL", "Email"])
def test_the_address_may_be_written_like_an_attribute(written: str) -> None:
    told = parsed(f"skills: {{customer-sync: {{field_mapping: {{email: {written}}}}}}}")
    assert told.field_mapping == {"email": "email"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("skills: [customer-sync]", "config.yaml:1: skills: must be a section"),
        ("- skills", "config.yaml: must be a section"),
        ("brevo: 5", "config.yaml:1: brevo: must be a section"),
        ("skills: {other-skill: {}}", "skills.other-skill: no such setting"),
        ("skills: {customer-sync: {options: {list_id: 1, listId: 2}}}", "is there twice, as list_id"),
        ("skills: {customer-sync: {field_mapping: {phone: 'S M S'}}}", "must name a Brevo attribute"),
        ("skills: {customer-sync: {field_mapping: {first_name: A, firstName: B}}}", "there twice"),
        ("skills: {customer-sync: {field_mapping: {email: CUSTOMER_EMAIL}}}", "is written email: email"),
        ("skills: {customer-sync: {field_mapping: {contactEmail: Email}}}", "is written email: email"),
        ("skills: {customer-sync: {options: {list_id: '5'}}}", "to 9007199254740992, without quotes"),
        ("skills: {customer-sync: {debug: 'True'}}", "must be true or false, without quotes"),
        ("retry: {jitter: '0.5'}", "must be a number from 0 to 1, without quotes"),
        ("skills: {customer-sync: {options: {sync_mode: bulk}}}", "must be realtime, batch or hybrid"),
        ("skills: {customer-sync: {source: 'custom:a b'}}", "the shop's name after the colon"),
        ("brevo: {base_url: 'https://[::1'}", "must begin with https://"),
        ("brevo: {base_url: 'https://'}", "must begin with https://"),
        ("brevo: {api_key_file: ~nobody-of-this-name/key}", "must be a path"),
        ("skills: {customer-sync: {options: {default_country: UK}}}", "or GB for the UK"),
        ('database: "a\\0b"', "must be a path"),
        (
            "notifications: {webhook_url: http://example.com}",
            "notifications.webhook_url: must begin with https",
        ),
        ("retry: {first_seconds: 0}", "retry.first_seconds: must be a number from 1 to 86400"),
        ("retry: {cap_seconds: 0.9}", "retry.cap_seconds: must be a number from 1 to 604800"),
        ("retry: {first_seconds: 9, cap_seconds: 8}", "retry: cap_seconds must not be less than first_sec"),
        ("retry: {firstSeconds: 3601}", "config.yaml:1: retry: cap_seconds must not be less than first_sec"),
        ("notifications: {secret: abc}", "notifications.secret: must be whsec_"),
        ("notifications: {events: [sync_complete]}", "did you mean sync_completed?"),
        ("notifications: {events: [foo]}", "knows no foo; known are: sync_completed, "),
        ("notifications: {events: [{a: 1}]}", "must be words out of these: sync_completed, "),
        ('database: "\\ud800.db"', "database: must be a path on this host"),
        ('database: "a\\0.db"', "database: must be a path on this host"),
        ('brevo: {api_key_env: "\\ud800"}', "brevo.api_key_env: must be a name on this host"),
        ('brevo: {api_key_credential: "a\\0b"}', "brevo.api_key_credential: must be a name on this host"),
        ('notifications: {secret_env: "\\ud800"}', "notifications.secret_env: must be a name on this host"),
    ],
)
def test_a_wrong_setting_is_told(text: str, told: str) -> None:
    assert any(told in fault for fault in faults(text)), faults(text)


NOWHERE = (
    *("https://", "https:///v3", "ftp://127.0.0.1/", "api.brevo.com", "http://example.com", "https://[::1"),
    *("https://a:99999", "https://a:abc", "https://a:-1", "https://a:0", "https://[::1]:x", "https://a:8:9/"),
    *(
        "https://a..b/v3",
        "https://.a/",
        f"https://{'a' * 64}.com",
        f"https://{'a.' * 130}com",
        "https://[zz]/",
    ),
    *(
        "https://a b/",
        "https://a/v 3",
        "https://a\n/v3",
        "https://a/\r\nx: y",
        "https://a\t/",
        "https://a/\0",
    ),
    *("https://a%00b/", "https://a,b/", "https://a\\b/", "https://zo\u00eb.example/", "https://a/zo\u00eb"),
    *("http://127.0.0.1.example.com/", "http://localhost.example.com", "http://[::2]/"),
)


@pytest.mark.parametrize("url", NOWHERE)
def test_a_url_at_which_nobody_can_be_called_is_refused(url: str) -> None:
    """It would be said at each call that Brevo cannot be reached, and never why."""
    with pytest.raises(FaultError, match="must begin with https://"):
        kinds.url(url)


@given(st.text("ahtps:/[].-_@%?#019\n \u00eb", max_size=20).map("https://{}".format))
def test_whatever_url_is_taken_can_be_called(url: str) -> None:
    with suppress(FaultError):
        parts = parse_url(kinds.url(url))
        assert parts.auth is None
        assert str(parts.host).strip("[]").encode("idna")


@pytest.mark.parametrize(
    "url",
    [
        *("https://api.brevo.com/v3", "http://127.0.0.1:8765/v3", "http://localhost/v3", "http://[::1]:1/v3"),
        *("https://[2001:db8::1]", "HTTPS://Proxy_1.Example.com.:65535/a-b/~c?d=e&f=%20@"),
    ],
)
def test_a_url_is_taken_as_it_is_written(url: str) -> None:
    assert (kinds.url(url), kinds.url(f" {url}/ ")) == (url, url)


@pytest.mark.parametrize("user", ["shop", "shop:secret", ":secret", ":", "", "a@b:secret"])
@pytest.mark.parametrize("setting", ["brevo: {base_url", "notifications: {webhook_url"])
def test_a_url_holds_no_password_and_the_fault_does_not_repeat_it(setting: str, user: str) -> None:
    """`check` and others print it."""
    told = faults(f"{setting}: 'https://{user}@example.com/v3'}}")
    assert [fault.partition("_url: ")[2] for fault in told] == ["must have no user and no password in it"]


def test_blanks_round_a_value_are_none_of_it() -> None:
    told = parsed(
        "skills: {customer-sync: {source: ' shopify '}}\nbrevo: {base_url: ' https://example.com/v3 '}"
    )
    assert (told.source, told.brevo.base_url) == ("shopify", "https://example.com/v3")


def test_a_mapping_of_thousands_of_fields_is_read_at_once() -> None:
    """Each name is looked for among those before it, not compared with each of them."""
    rules = {f"field{number}": f"F{number}" for number in range(9000)}
    mapped = config.from_mapping({"skills": {"customer-sync": {"field_mapping": rules}}}, "test")
    assert mapped.field_mapping == rules
