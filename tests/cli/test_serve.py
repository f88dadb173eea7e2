from __future__ import annotations

import importlib.util
import json
import re
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.certificates import Certificates
from support.command_line import Running, tritontune

from tuner.service.secrets import Secrets
from tuner.service.serving import environment_of_jobs


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--listen", "0.0.0.0:8100"],
            r"--listen 0\.0\.0\.0:8100: others on the network could read tokens; give --tls",
        ),
        (["--listen", "[::]:8100"], "others on the network"),
        (["--listen", "8100"], r"--listen: '8100' is not an address; write HOST:PORT, such as 127\.0\.0\.1:8100"),
        (["--listen", "127.0.0.1:x"], "is not an address"),
        (["--listen", "127.0.0.1:70000"], "is not an address"),
        (["--listen", "::1:8100"], r"write an IPv6 address in brackets, such as \[::1\]:8100"),
        (["--listen", "no-such-host.invalid:0", "--behind-proxy"], "is no address of this machine"),
        (["--tls-cert", "x.pem"], "--tls-cert needs --tls-key"),
        (["--tls-key", "x.pem"], "--tls-key needs --tls-cert"),
        (["--tls-cert", "a", "--tls-key", "b", "--behind-proxy"], "--behind-proxy: the proxy adds TLS; omit"),
        (["--public-url", "tuner.example.com"], "--public-url: 'tuner.example.com' is not an address; write https://"),
        (["--public-url", "https://x/path"], "--public-url: "),
        (["--config", "none.yaml"], "none.yaml: cannot be read: No such file"),
        (["--keep", "soon"], "--keep: 'soon' is not a duration"),
        (["--database", "mysql://x"], "--database: mysql databases are not supported"),
        (["--database", "postgresql://x:${NO_SUCH_VARIABLE}@y/z"], "--database: environment variable NO_SUCH_VARIABLE"),
        (["--data", "file"], "--data: file: cannot be made: File exists"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "file").touch()
    listen = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
    done = tritontune("serve", *listen, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(rf"tritontune: .*{reason}.*\n", done.stderr)
    assert done.stdout == ""


def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tritontune("serve", "--listen", f"127.0.0.1:{port}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"tritontune: --listen: 127.0.0.1:{port}: address already in use\n")


def test_a_fault_in_the_config_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "service.yaml").write_text("imges: x\n")
    done = tritontune("serve", "--data", "data", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == 2
    assert "service.yaml: unknown option 'imges'; did you mean 'images'?" in done.stderr


def test_missing_packages_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: (name != "fastapi" and found(name, *more)) or None
    )
    done = tritontune("serve")
    expected = "tritontune: tritontune serve needs more packages: pip install 'tritontune[service]'\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_jobs_get_no_secrets_of_the_service() -> None:
    environment = {
        "PATH": "/bin",
        "PGPASSWORD": "x",
        "PGHOST": "db",
        "TRITONTUNE_TOKEN": "x",
        "DB_PASSWORD": "x",
        "HF_TOKEN": "x",
        "CUDA_VISIBLE_DEVICES": "0",
        "RAY_AUTH_TOKEN": "x",
        "RAY_AUTH_MODE": "token",
    }
    assert environment_of_jobs(environment, Secrets(("HF_*",), environment)).keys() == {
        "PATH",
        "HF_TOKEN",
        "CUDA_VISIBLE_DEVICES",
    }


@contextmanager
def _running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Iterator[tuple[Running, str, str]]:
    """A service, its address, and the address to log in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with Running("serve", "--data", "data", "--listen", "127.0.0.1:0", *arguments) as service:
        assert service.stdout is not None
        address = service.stdout.readline().rpartition(" ")[2].strip()
        login = service.stdout.readline().split()[2]
        yield service, address, login
        if service.poll() is None:
            service.send_signal(signal.SIGTERM)
        service.communicate(timeout=60)


def _get(url: str, token: str | None = None, **more: Any) -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib3.PoolManager(**more) as pool:
        return pool.request("GET", url, headers=headers, redirect=False, timeout=60)


@pytest.mark.slow
def test_the_service_starts_serves_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _running(tmp_path, monkeypatch) as (service, address, login):
        token = tmp_path / "data" / "admin.token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
        assert login.startswith(f"{address}/login?code=")
        assert _get(f"{address}/readyz").data == b"ok\n"
        assert _get(f"{address}/api/v1/jobs").status == 401
        hosts = json.loads(_get(f"{address}/api/v1/hosts", token.read_text().strip()).data)
        assert hosts["items"][0]["slots"]
        second = tritontune("serve", "--data", "data", "--listen", "127.0.0.1:0")
        assert second.returncode == 2
        holder = f"process {service.pid} on {socket.gethostname()}"
        words = f"in use by another tritontune serve ({holder}); end it, or wait for its end with --wait"
        assert words in second.stderr
        service.send_signal(signal.SIGTERM)
        out, log = service.communicate(timeout=60)
        assert service.returncode == 0
        assert "the service ends; jobs that run go on" in out
        lines = [json.loads(line) for line in log.splitlines()]
        assert [(line["path"], line["status"]) for line in lines if "path" in line] == [
            ("/readyz", 200),
            ("/api/v1/jobs", 401),
            ("/api/v1/hosts", 200),
        ]
        assert token.read_text().strip() not in log
        assert login.rpartition("=")[2] not in log


@pytest.mark.slow
def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Certificates.make(tmp_path)
    wrong = tritontune(
        "serve", "--listen", "127.0.0.1:0", "--tls-cert", made.server, "--tls-key", made.client_key, cwd=tmp_path
    )
    assert wrong.returncode == 2
    assert "--tls-cert, --tls-key: cannot be used" in wrong.stderr
    files = ("--tls-cert", str(made.server), "--tls-key", str(made.server_key))
    with _running(tmp_path, monkeypatch, *files) as (_, address, _login):
        assert address.startswith("https://127.0.0.1:")
        assert _get(f"{address}/healthz", ca_certs=str(made.ca)).data == b"ok\n"


@pytest.mark.slow
def test_a_second_service_may_wait_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        _running(tmp_path, monkeypatch) as (first, _, _login),
        Running("serve", "--data", "data", "--listen", "127.0.0.1:0", "--wait") as second,
    ):
        assert second.stdout is not None
        assert second.stdout.readline().startswith("waiting: data: in use by another tritontune serve")
        first.send_signal(signal.SIGTERM)
        assert "tritontune serves data at http://127.0.0.1:" in second.stdout.readline()
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=60)
        assert second.returncode == 0
