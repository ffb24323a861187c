"""As a team runs it: a real Prefect server and worker, the deployments of infra/, a run started by name."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import Spoken
from tests.e2e.runs import Lake

pytestmark = pytest.mark.timeout(1800)

SOURCES, DESTINATION = "s3://calls/*.tar", "s3://speech-lake"


@dataclass(frozen=True)
class Prefect:
    """A Prefect server of its own and the environment that its clients need."""

    environment: dict[str, str]
    log: IO[str]

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``prefect ...`` from the repository's root, without questions."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0 or not check, f"{arguments}:\n{done.stdout}\n{done.stderr}"
        return done

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        response = httpx.post(f"{self.environment['PREFECT_API_URL']}{path}", json=body or {}, timeout=60)
        response.raise_for_status()
        return response.json()

    @contextmanager
    def process(self, *arguments: str) -> Iterator[None]:
        """A ``prefect ...`` process, with what it starts, for as long as the block lasts."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        process = subprocess.Popen(
            command, env=self.environment, cwd=ROOT, stdout=self.log, stderr=self.log, start_new_session=True
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def until(ready: Callable[[], Any], seconds: float, what: str, log: Path) -> Any:
    """Poll until ``ready`` gives something; fails with the servers' log after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(1)
    raise AssertionError(f"{what}: not within {seconds:.0f} s\n{log.read_text()[-5000:]}")


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server on a free loopback port, the deployments, and a process worker."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_API_REQUEST_TIMEOUT": "300",
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "VOXMILL_SOURCES": SOURCES,
        "VOXMILL_DESTINATION": DESTINATION,
    }
    log = home / "log.txt"
    with open(log, "w", encoding="utf-8") as stream:
        client = Prefect(environment, stream)

        def healthy() -> bool:
            try:
                return httpx.get(f"{environment['PREFECT_API_URL']}/health", timeout=10).is_success
            except httpx.HTTPError:
                return False

        with client.process("server", "start", "--host", "127.0.0.1", "--port", str(port)):
            until(healthy, 300, "Prefect's server", log)
            client("work-pool", "create", "voxmill", "--type", "process")
            client("deploy", "--prefect-file", "infra/prefect.yaml", "--all")
            with client.process("worker", "start", "--pool", "voxmill"):
                yield client


@pytest.fixture(scope="module")
def few_digits(digits: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of six spoken digits with their texts beside them, and a member that is no audio."""
    path = tmp_path_factory.mktemp("sources") / "digits.tar"
    with tarfile.open(path, "w") as tar:
        for clip in digits[::45][:6]:
            for name, data in ((clip.name, clip.data), (clip.name.replace(".wav", ".txt"), clip.text.encode())):
                _add(tar, name, data)
        _add(tar, "notes.pdf", b"%PDF-1.4 not a recording")
    return path


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_all_deployments_are_there_with_a_form_that_explains_itself(prefect: Prefect) -> None:
    flows = {flow["id"]: flow["name"] for flow in prefect.api("/flows/filter")}
    found = {f"{flows[one['flow_id']]}/{one['name']}": one for one in prefect.api("/deployments/filter")}
    assert set(found) == {"corpus/nightly", "corpus/adhoc", "regenerate/adhoc", "export/adhoc", "report/adhoc"}
    nightly = found["corpus/nightly"]
    assert nightly["parameters"] == {"sources": [SOURCES], "destination": DESTINATION}
    assert [(one["schedule"]["cron"], one["schedule"]["timezone"], one["active"]) for one in nightly["schedules"]] == [
        ("30 1 * * *", "Etc/UTC", True)
    ]
    for name, deployment in found.items():
        form = deployment["parameter_openapi_schema"]
        assert "destination" in form["required"], name
        for field, about in form["properties"].items():
            group = form["definitions"].get(about.get("$ref", "").rpartition("/")[2], {})
            assert about.get("description") or group.get("description"), f"{name}: {field}"


def test_a_wrong_parameter_is_refused_before_anything_runs(prefect: Prefect) -> None:
    wrong = prefect("deployment", "run", "corpus/adhoc", "-p", "sources=[]", "-p", "destination=/nowhere", check=False)
    assert wrong.returncode != 0
    assert "sources" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stdout + wrong.stderr


def test_a_run_started_by_name_publishes_tables_and_a_report(
    prefect: Prefect, few_digits: Path, bundled_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    engines = [f"{family}:{bundled_checkpoints[family]}" for family in ("conformer", "whisper")]
    prefect(
        "deployment", "run", "corpus/adhoc", "--watch",
        "-p", f"sources={json.dumps([str(few_digits)])}",
        "-p", f"destination={lake}",
        "-p", f"transcribers={json.dumps(engines)}",
        "-p", f"trusted={json.dumps([str(bundled_checkpoints['conformer'].parent)])}",
        "-p", 'recipe={"asr": {"language": "en"}}',
    )  # fmt: skip
    flow_run = _latest(prefect, "corpus")
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("COMPLETED", "Published")
    assert flow_run["state"]["message"].startswith("7 members in, 6 published, 1 rejected; ")
    assert flow_run["name"].endswith(" lake")

    rows = Lake(str(lake))
    manifest = rows.manifests()[-1]
    assert (manifest["status"], manifest["members_published"]) == ("published", 6)
    assert manifest["run_id"].endswith(flow_run["id"][:8])
    assert len(rows.rows("utterances")) == len(rows.rows("audio")) == len(rows.rows("features")) == 6
    assert {row["engine"] for row in rows.rows("transcripts")} == set(engines)
    assert {row["member"] for row in rows.rows("rejects")} == {"notes.pdf"}
    assert (lake / "reports" / manifest["run_id"] / "index.html").is_file()

    artifacts = {one["key"]: one for one in prefect.api("/artifacts/filter", {"sort": "UPDATED_DESC"})}
    assert float(artifacts["progress"]["data"]) == 100
    assert json.loads(artifacts["archives"]["data"])[0]["published"] == 6
    assert manifest["run_id"] in artifacts["summary"]["data"]
    logs = " ".join(
        one["message"] for one in prefect.api("/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}})
    )
    assert f"{few_digits}: " in logs
    assert "digits.tar shard 1 (" in logs

    page = lake / "reports" / manifest["run_id"] / "index.html"
    page.unlink()
    prefect("deployment", "run", "report/adhoc", "--watch", "-p", f"destination={lake}")
    assert _latest(prefect, "report")["state"]["type"] == "COMPLETED"
    assert page.is_file()


def _latest(prefect: Prefect, flow: str) -> dict[str, Any]:
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
    return prefect.api("/flow_runs/filter", body)[0]
