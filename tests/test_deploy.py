"""What deploy/ and the Dockerfile say, held against the server they are about."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from server import __version__
from server.metrics import Metrics
from server.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
GRAFANA = DEPLOY / "grafana"

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}

yaml = pytest.importorskip("yaml")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="process_* metrics are read from /proc"
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed"
)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def dashboard() -> Any:
    return json.loads((GRAFANA / "dashboards" / "stele.json").read_text())


def panels() -> list[Any]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def alerts() -> list[Any]:
    groups = read_yaml(PROMETHEUS / "alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def services() -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(DEPLOY / "compose.yaml")["services"]
    return found


def metrics_named(expressions: list[str]) -> set[str]:
    names = re.compile(r"\b(?:stele|process)_\w+")
    quoted = re.compile(r'"[^"]*"')
    return {name for each in expressions for name in names.findall(quoted.sub("", each))}


def metrics_exported() -> set[str]:
    registry = CollectorRegistry()
    Metrics(registry, "x")
    families = registry.collect()
    return {each.name + suffix for each in families for suffix in _SUFFIXES[each.type]}


@needs_proc
@pytest.mark.parametrize(
    "expressions", [panel_expressions(), [a["expr"] for a in alerts()]], ids=["dashboard", "alerts"]
)
def test_every_metric_that_is_named_is_one_that_the_server_exports(expressions: list[str]) -> None:
    named = metrics_named(expressions)

    assert named
    assert named <= metrics_exported()


def test_every_metric_of_our_own_is_on_the_dashboard() -> None:
    named = metrics_named(panel_expressions())
    registry = CollectorRegistry()
    Metrics(registry, "x")
    for family in registry.collect():
        if family.name.startswith("stele_") and family.type != "info":
            assert named & {family.name + suffix for suffix in _SUFFIXES[family.type]}, family.name


def test_every_panel_asks_the_provisioned_datasource() -> None:
    sources = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    provisioned = [{"type": source["type"], "uid": source["uid"]} for source in sources]
    board = dashboard()
    users = [*board["templating"]["list"], *panels(), *(t for p in panels() for t in p["targets"])]

    assert len(provisioned) == 1
    assert all(user["datasource"] == provisioned[0] for user in users)


def test_panels_have_their_own_ids_and_places() -> None:
    everything = dashboard()["panels"]
    taken = [
        (x, y)
        for panel in everything
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len(set(taken)) == len(taken)
    assert all(x < 24 for x, _ in taken)


def test_the_dashboards_are_mounted_where_grafana_is_told_to_look() -> None:
    grafana = services()["grafana"]
    mounts = dict(mount.split(":")[:2] for mount in grafana["volumes"])
    provider = read_yaml(GRAFANA / "provisioning" / "dashboards" / "stele.yaml")["providers"][0]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert mounts["./grafana/dashboards"] == provider["options"]["path"] == str(home.parent)
    assert (GRAFANA / "dashboards" / home.name).is_file()
    assert all((DEPLOY / source).exists() for source in mounts if source.startswith("."))


def test_prometheus_and_grafana_find_their_services_by_name_and_port() -> None:
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    source = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    addresses = {
        f"{name}:{port.split(':')[-1]}"
        for name, each in services().items()
        for port in each["ports"]
    }

    assert set(targets) <= addresses
    assert source[0]["url"].removeprefix("http://") in addresses
    assert targets == [f"stele:{image_environment()['STELE_HTTP_PORT']}"]


def test_alerts_ask_for_the_job_that_is_scraped() -> None:
    jobs = {each["job_name"] for each in read_yaml(PROMETHEUS / "prometheus.yml")["scrape_configs"]}
    asked = re.findall(r'job="(\w+)"', " ".join(alert["expr"] for alert in alerts()))

    assert set(asked) == jobs


def test_the_queue_alert_knows_the_default_limit() -> None:
    expression = next(a["expr"] for a in alerts() if a["alert"] == "SteleQueueFilling")
    assert expression.endswith(f"> {Settings().max_waiting_segments // 2}")


@pytest.mark.parametrize("name", services())
def test_a_service_is_reachable_from_this_machine_only_and_cannot_gain_privileges(
    name: str,
) -> None:
    service = services()[name]

    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "mem_limit" in service


def test_the_server_writes_nothing_outside_its_tmpfs_and_has_time_to_drain() -> None:
    service = services()["stele"]

    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert float(service["stop_grace_period"].removesuffix("s")) > Settings().request_timeout_s + 5


def instructions(stage: int | None = None) -> list[tuple[str, str]]:
    """Return (keyword, arguments) of the Dockerfile, or of one stage of it."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]
    if stage is None:
        return [each for each in found if each[0]]
    starts = [i for i, (word, _) in enumerate(found) if word == "FROM"]
    return found[starts[stage] :]


def last(keyword: str) -> str:
    return [rest for word, rest in instructions(-1) if word == keyword][-1]


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", last("ENV")))


def test_the_image_needs_no_other_frontend_and_one_base() -> None:
    assert "# syntax=" not in (ROOT / "Dockerfile").read_text()
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert set(bases) == {"${PYTHON_IMAGE}"}


def test_what_the_image_copies_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = next(line for line in lines if not line.startswith("#"))
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]

    assert ignored == "*"
    assert copied
    assert {f"!{source}" for source in copied} == {line for line in lines if line[:1] == "!"}


def test_the_image_runs_the_server_as_a_numeric_user_without_a_shell() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))
    assert json.loads(last("CMD")) == ["stele", "serve"]


def test_the_image_listens_on_every_address_at_the_port_it_exposes() -> None:
    environment = image_environment()

    assert environment["STELE_HTTP_HOST"] == "0.0.0.0"
    assert environment["STELE_HTTP_PORT"] == last("EXPOSE")


def test_the_image_is_labelled_with_the_version_of_the_package() -> None:
    assert ("ARG", f"VERSION={__version__}") in instructions()
    assert 'org.opencontainers.image.version="${VERSION}"' in last("LABEL")


def health_check() -> list[str]:
    command: list[str] = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    return [sys.executable, *command[1:]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if holds():
                return
        except httpx.TransportError:
            pass  # nothing listens yet
        time.sleep(0.1)
    pytest.fail(f"nothing came of it:\n{log.read_text()}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a real server; yields its URL."""
    log = tmp_path_factory.mktemp("stele") / "log"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["serve", "--port", str(port), "--max-texts", "1", "--threads", "1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, process, log)
        yield url
    finally:
        end(process)


def test_the_image_is_healthy_when_the_server_is_ready(server: str) -> None:
    port = server.rpartition(":")[2]
    for environment, code in [({"STELE_HTTP_PORT": port}, 0), ({"STELE_HTTP_PORT": "1"}, 1)]:
        ran = subprocess.run(
            health_check(), env={**os.environ, **environment}, capture_output=True, check=False
        )
        assert ran.returncode == code, ran.stderr


@needs_promtool
@pytest.mark.parametrize(("kind", "file"), [("config", "prometheus.yml"), ("rules", "alerts.yml")])
def test_prometheus_can_read(kind: str, file: str) -> None:
    ran = subprocess.run(
        ["promtool", "check", kind, PROMETHEUS / file], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def series(name: str, values: str) -> dict[str, str]:
    return {"series": name, "values": values}


def requests(route: str, outcome: str, per_minute: int) -> dict[str, str]:
    labels = f'job="stele",instance="a",route="{route}",outcome="{outcome}"'
    return series(f"stele_requests_total{{{labels}}}", f"0+{per_minute}x30")


_UP = series('up{job="stele",instance="a"}', "1x30")
_DOWN = series('up{job="stele",instance="a"}', "0x30")
_LOADED = series('stele_slots{job="stele",instance="a",model="m"}', "64x30")
_WAITING = series('stele_requests_waiting{job="stele",instance="a",model="m"}', "5000x30")
_REFUSED = series('stele_rejected_total{job="stele",instance="a",reason="queue_full"}', "0+10x30")
_OK = requests("/translate", "ok", 90)


@needs_promtool
@pytest.mark.parametrize(
    ("history", "firing"),
    [
        ([_UP, _LOADED, _OK], set()),
        ([_DOWN], {"SteleDown"}),
        ([_UP, _OK], {"SteleNotReady"}),
        ([_UP, _LOADED, requests("/readyz", "rejected", 6)], {"SteleNotReady"}),
        ([_UP, _LOADED, _OK, requests("/generate", "failed", 3)], {"SteleFailing"}),
        ([_UP, _LOADED, _WAITING], {"SteleQueueFilling"}),
        ([_UP, _LOADED, _OK, _REFUSED], {"SteleRejecting"}),
    ],
    ids=["healthy", "down", "loading", "probes fail", "failing", "queue", "rejecting"],
)
def test_which_alerts_fire_after_half_an_hour(
    history: list[dict[str, str]], firing: set[str], tmp_path: Path
) -> None:
    test = {
        "interval": "1m",
        "input_series": history,
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "30m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)
                ],
            }
        ],
    }
    document = {"rule_files": [str(PROMETHEUS / "alerts.yml")], "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document | {"evaluation_interval": "1m"}))
    ran = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture
def prometheus(server: str, tmp_path: Path) -> Iterator[Callable[[str], list[Any]]]:
    """Run a real Prometheus with our configuration against `server`; yields a way to ask it."""
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [server.removeprefix("http://")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    address, log = f"127.0.0.1:{free_port()}", tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=output,
            stderr=output,
        )

    def ask(expression: str) -> list[Any]:
        answer = httpx.get(f"http://{address}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        result: list[Any] = answer.json()["data"]["result"]
        return result

    try:
        ready = f"http://{address}/-/ready"
        wait_until(lambda: httpx.get(ready).status_code == 200, process, log)
        # Twice scraped: from then on every counter has a rate.
        twice = 'count_over_time(up{job="stele"}[1m]) >= 2'
        wait_until(lambda: bool(ask(twice)), process, log)
        yield ask
    finally:
        end(process)


@pytest.fixture(scope="module")
def worked(server: str) -> None:
    """Let the server translate a text, and refuse two at once."""
    body = {"q": "Where is the station?", "source": "en", "target": "de"}
    assert httpx.post(f"{server}/translate", json=body, timeout=60).is_success
    refused = httpx.post(f"{server}/translate", json=body | {"q": ["One.", "Two."]})
    assert refused.is_client_error


@needs_prometheus
@pytest.mark.usefixtures("worked")
def test_a_real_prometheus_sees_the_server_and_fills_every_panel(
    prometheus: Callable[[str], list[Any]],
) -> None:
    up, slots = prometheus("up"), prometheus("stele_slots")
    queries = [
        each.replace("$instance", ".+").replace("$__rate_interval", "1m")
        for each in panel_expressions()
    ]

    assert [each["metric"]["job"] for each in up] == ["stele"]
    assert [each["value"][1] for each in up + slots] == ["1", str(Settings().slots)]
    assert [each for each in queries if not prometheus(each)] == []
    assert prometheus("ALERTS") == []
