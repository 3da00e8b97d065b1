"""A real Prefect server and worker run what prefect.yaml deploys, triggered through the API."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

from flows.embedded_server import begin_database
from tests.conftest import ROOT, change, tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]


def prefect(*args):
    return [sys.executable, "-m", "prefect", *args]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(ready, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds} s")


@contextmanager
def running(command, env, log):
    """A process of the project's folder, ended with the block; a busy machine may need force."""
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A server with a database of its own: the environment that points to it, and a client."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",  # the default is 10
    }
    begin_database(folder / "prefect")
    start = prefect("server", "start", "--host", "127.0.0.1", "--port", str(port))
    with running(start, env, folder / "log"), httpx.Client(base_url=url, timeout=60) as client:

        def healthy():
            try:
                return client.get("/health").is_success
            except httpx.TransportError:
                return False

        wait_until(healthy, 120, "prefect server")
        yield env, client


@pytest.fixture
def server(started, home):
    """The server, for what works in this test's home."""
    env, client = started
    home.mkdir()
    return env | {"TUNETRAIL_HOME": str(home)}, client


def call(env, *args):
    done = subprocess.run(prefect(*args), cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_deployments_register_and_a_worker_completes_a_triggered_run(
    server, home, quick_config
):
    env, client = server
    call(env, "work-pool", "create", "tunetrail", "--type", "process", "--overwrite")
    call(env, "--no-prompt", "deploy", "--all")
    found = {d["name"]: d for d in client.post("/deployments/filter", json={}).json()}
    assert set(found) >= {"sft", "audit", "train", "retrain"}
    assert [s["schedule"]["cron"] for s in found["retrain"]["schedules"]] == ["0 3 * * 1"]

    definitions = found["sft"]["parameter_openapi_schema"]["definitions"]
    for section in definitions.values():
        for name, field in section["properties"].items():
            reference = field.get("$ref", "").rpartition("/")[2]
            help_line = field.get("description") or definitions[reference]["description"]
            assert help_line, f"{section['title']}.{name} has no help line in the form"

    start = prefect("worker", "start", "--pool", "tunetrail")
    with running(start, env, home / "worker.log"):
        config = change(quick_config, training={"max_steps": 2}).model_dump(mode="json")
        request = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}

        def triggered():
            answer = client.post(f"/deployments/{found['sft']['id']}/create_flow_run", json=request)
            if answer.status_code == 503:  # SQLite is locked for a moment while a worker registers
                return None
            answer.raise_for_status()
            return answer.json()["id"]

        run_id = wait_until(triggered, 60, "the trigger")

        def ended():
            state = client.get(f"/flow_runs/{run_id}").json()["state"]
            return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED") else None

        state = wait_until(ended, 240, "the triggered run")
    assert state["type"] == "COMPLETED", (home / "worker.log").read_text()[-3000:]
    mlflow = tracking(home)
    experiment = mlflow.get_experiment_by_name("quick").experiment_id
    (run,) = mlflow.search_runs([experiment], f"tags.`prefect.flow_run_id` = '{run_id}'")
    assert run.info.status == "FINISHED"
    assert run.data.params["training.max_steps"] == "2"


def test_training_deployments_fit_docker_and_kubernetes_pools(server):
    env, client = server
    for kind in ("docker", "kubernetes"):
        call(env, "work-pool", "create", f"gpu-{kind}", "--type", kind)
    call(env, "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.gpu.yaml")
    found = {d["name"]: d for d in client.post("/deployments/filter", json={}).json()}
    for kind in ("docker", "kubernetes"):
        deployment = found[kind]
        pool = client.get(f"/work_pools/gpu-{kind}").json()
        assert pool["type"] == kind
        # A variable that the pool's template does not know would be left out without a word.
        known = pool["base_job_template"]["variables"]["properties"]
        assert set(deployment["job_variables"]) <= set(known)
        assert deployment["job_variables"]["env"]["TUNETRAIL_STORE_URL"]


@pytest.mark.timeout(900)  # two runs, and a start of the flow `train` in each
def test_the_training_stage_runs_on_another_machine(server, home, tmp_path, quick_config):
    """A worker with a home of its own trains; both homes share no more than the store's URL."""
    env, client = server
    call(env, "work-pool", "create", "tunetrail", "--type", "process", "--overwrite")
    call(env, "--no-prompt", "deploy", "--name", "train")
    env = env | {"TUNETRAIL_STORE_URL": f"file://{tmp_path}/shared"}
    there = tmp_path / "there"
    path = tmp_path / "config.json"
    worker = env | {"TUNETRAIL_HOME": str(there)}
    with running(
        prefect("worker", "start", "--pool", "tunetrail"), worker, tmp_path / "worker.log"
    ):
        here = env | {"TUNETRAIL_TRAIN_DEPLOYMENT": "train/train"}

        def run(**training):
            config = change(quick_config, training={"max_steps": 2, **training})
            path.write_text(config.model_dump_json())
            command = [sys.executable, "-m", "flows.cli", "run", str(path)]
            return subprocess.run(
                command, cwd=ROOT, env=here, capture_output=True, text=True, timeout=400
            )

        done = run()
        assert done.returncode == 0, done.stderr[-2000:] + (tmp_path / "worker.log").read_text()
        # An error of ours crosses over with its kind: 2 is that of a config.
        refused = run(lora={"target_modules": ["no_such_layer"]})
        assert refused.returncode == 2, refused.stderr[-2000:]
        assert "no_such_layer" in refused.stderr
    assert list((there / "store").glob("*.dir"))
    assert list((home / "store").glob("*.dir"))
    assert not (there / "mlflow.db").exists()
    runs = client.post("/flow_runs/filter", json={}).json()
    kinds = sorted((run["name"] != "", run["state"]["name"]) for run in runs)
    assert (True, "ConfigError") in kinds
