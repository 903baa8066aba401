"""The service: its unit keeps its promises, and the README leads from a bare host to a drained event.

The commands run as they are printed, on the host's own directories under overlays that go with the process.
What needs systemd as the first process is left out, and stood in for by what the unit says.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboxd.brevo.sandbox import Sandbox
from tests.users import READER, needs_mounts

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "systemd" / "outboxd.service"
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")

BARE_HOST = """
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs none {above}
for each in etc opt var; do
    mkdir {above}/$each {above}/$each.work
    mount -t overlay -o lowerdir=/$each,upperdir={above}/$each,workdir={above}/$each.work overlay /$each
done
rm -rf /opt/outboxd /etc/outboxd /var/lib/outboxd
say() {{ printf '%s: %s\\n' "$1" "$2"; }}
"""
"""The host's directories as they are, and whatever becomes of them to be forgotten."""

LOOK = """
say directory "$(stat -c '%a %U %G' /var/lib/outboxd)"
say outbox "$(stat -c '%a %U %G' /var/lib/outboxd/outbox.db)"
say key "$(stat -c '%a %U' /etc/outboxd/brevo-api-key)"
say verify "$(systemd-analyze verify /etc/systemd/system/outboxd.service 2>&1)"
say member "$(id -nG www-data)"
"""

SERVE = """
CREDENTIALS_DIRECTORY=/etc/outboxd setpriv --reuid {user} --regid {group} --clear-groups {reader} \\
    sh -c 'umask {umask}; exec {command}' 2> {above}/words &
daemon=$!
until grep -q ' started ' {above}/words; do kill -0 $daemon || {{ cat {above}/words >&2; exit 1; }}; done
printf '%s' '{{"id": 5, "email": "jane@example.com", "lastName": "Smith"}}' \\
    | setpriv --reuid www-data --regid www-data --init-groups sh {recipe} customer_created
until [ "$(sqlite3 /var/lib/outboxd/outbox.db 'SELECT status FROM outbox')" != pending ]; do :; done
say event "$(sqlite3 /var/lib/outboxd/outbox.db 'SELECT status FROM outbox')"
kill -TERM $daemon
wait $daemon && say stopped $?
"""


@pytest.fixture
def unit() -> dict[str, list[str]]:
    """The unit's [Service] settings, each with its values in their order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text().partition("[Service]")[2], re.M):
        found.setdefault(name, []).append(value)
    return found


@needs_systemd
def test_its_exposure_is_small() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", str(UNIT)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    exposure = re.search(r"exposure level for outboxd.service: ([0-9.]+)", told.stdout)
    assert exposure is not None, told.stderr
    assert float(exposure[1]) <= 1.5
    assert told.returncode == 0


def test_it_speaks_with_systemd_and_is_watched(unit: dict[str, list[str]]) -> None:
    from outboxd.daemon import LIVELY, STOP_WITHIN

    assert unit["Type"] == ["notify"]
    assert float(unit["WatchdogSec"][0]) > LIVELY
    assert float(unit["TimeoutStopSec"][0]) > STOP_WITHIN.total_seconds()


def test_a_wrong_configuration_is_not_started_again_and_all_else_is(unit: dict[str, list[str]]) -> None:
    from outboxd.errors import ConfigError, SchemaError

    assert unit["Restart"] == ["on-failure"]
    assert {ConfigError.exit_code, SchemaError.exit_code} == {int(unit["RestartPreventExitStatus"][0])}


def test_unit_user_and_directory_agree(unit: dict[str, list[str]]) -> None:
    [user, group, mode] = unit["User"] + unit["Group"] + unit["StateDirectoryMode"]
    directory = f"/var/lib/{unit['StateDirectory'][0]}"
    assert f"d {directory} {mode} {user} {group} -" in (ROOT / "systemd/outboxd.tmpfiles").read_text()
    assert f"u {user} - " in (ROOT / "systemd/outboxd.sysusers").read_text()
    name, _, path = unit["LoadCredential"][0].partition(":")
    told = "\n".join(COMMANDS)
    assert f"api_key_credential: {name}/'" in told
    assert f"install -m 600 /dev/null {path}" in told
    sample = (ROOT / "config.sample.yaml").read_text()
    assert f"database: {directory}/outbox.db" in sample


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def as_far_as_it_goes(block: str) -> str:
    """A block of the README, without what needs systemd at work, and with this environment as the program."""
    lines = [line for line in block.splitlines() if not line.startswith("systemctl ")]
    known = {
        "python3 -m venv /opt/outboxd": f"ln -s {Path(sys.executable).parent.parent} /opt/outboxd",
        "/opt/outboxd/bin/pip install .": "test -x /opt/outboxd/bin/outboxd",  # .ci/run installs the wheel
        "tee /etc/outboxd/brevo-api-key > /dev/null": "tee /etc/outboxd/brevo-api-key <<< xkeysib-sandbox",
    }
    return "\n".join(known.get(line, line) for line in lines)


@needs_systemd
@needs_mounts
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command")
def test_the_readmes_commands_lead_from_a_bare_host_to_a_drained_event(
    unit: dict[str, list[str]], sandbox: Sandbox, tmp_path: Path
) -> None:
    program, settings, start, shop = map(as_far_as_it_goes, COMMANDS)
    at_the_sandbox = f"sed -i 's|https://api.brevo.com/v3|{sandbox.url}|' /etc/outboxd/config.yaml"
    recipe = "/var/lib/enqueue.sh"
    serve = SERVE.format(
        user=unit["User"][0],
        group=unit["Group"][0],
        umask=unit["UMask"][0],
        command=unit["ExecStart"][0],
        reader=" ".join(READER),
        recipe=recipe,
        above=tmp_path,
    )
    bare_host = BARE_HOST.format(above=tmp_path)
    copied = f"install -m 644 recipes/enqueue.sh {recipe}"
    script = "\n".join((bare_host, program, settings, at_the_sandbox, start, shop, LOOK, copied, serve))
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*alone, "bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "FAIL" not in done.stdout
    told = dict(re.findall(r"^(\w+): (.*)$", done.stdout, re.M))
    assert told["directory"] == "2770 outboxd outboxd"
    assert told["outbox"] == "660 outboxd outboxd"
    assert told["key"] == "600 root"
    assert told["verify"] == ""
    assert "outboxd" in told["member"].split()
    assert (told["event"], told["stopped"]) == ("delivered", "0")
    [contact] = sandbox.contacts
    assert contact["attributes"]["LASTNAME"] == "Smith"


def test_what_needs_systemd_at_work_is_left_out_by_name_alone() -> None:
    left_out = [line for block in COMMANDS for line in block.splitlines() if line.startswith("systemctl ")]
    assert left_out == [
        "systemctl daemon-reload",
        "systemctl enable --now outboxd",
        "systemctl status outboxd",
        "systemctl restart php-fpm",
    ]
