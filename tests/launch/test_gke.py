"""The manifests for GKE: what has to agree inside each, and between them and the program."""

import re

import pytest
import yaml

STOPS = {1, 2, 130}


def load(root, name: str) -> list[dict]:
    return list(yaml.safe_load_all((root / "launch" / "gke" / name).read_text()))


@pytest.fixture(params=["tpu-slice.yaml", "gpu-nodes.yaml"])
def job(request, root) -> dict:
    """The spec of the indexed job of a manifest."""
    last = load(root, request.param)[-1]
    if last["kind"] == "JobSet":
        (replicated,) = last["spec"]["replicatedJobs"]
        assert replicated["replicas"] == 1
        return replicated["template"]["spec"]
    return last["spec"]


@pytest.fixture
def tpu(root) -> dict:
    (jobset,) = load(root, "tpu-slice.yaml")
    return jobset


@pytest.fixture
def gpu(root) -> tuple[dict, dict]:
    service, job = load(root, "gpu-nodes.yaml")
    return service, job


def container_of(job: dict) -> dict:
    (container,) = job["template"]["spec"]["containers"]
    return container


def test_every_process_starts_once_and_together(job):
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] > 1
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "a policy for exit codes needs it"
    assert pod["terminationGracePeriodSeconds"] >= 120


def test_same_program_same_share(job, root):
    container = container_of(job)
    assert container["command"] == ["python", "launch/train.py"]
    assert (root / container["command"][1]).is_file()
    config, workdir = container["args"][:2]
    assert (root / config.removeprefix("--config=")).is_file()
    (mount,) = container["volumeMounts"]
    assert workdir.startswith(f"--workdir={mount['mountPath']}/")
    (volume,) = job["template"]["spec"]["volumes"]
    (claim,) = load(root, "storage.yaml")
    assert volume["name"] == mount["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert container["image"].rpartition(":")[0] == "REGION-docker.pkg.dev/PROJECT/flcl/flcl"


def test_codes_that_end_a_job_are_those_of_the_program(job):
    rules = job["podFailurePolicy"]["rules"]
    ends = [rule["onExitCodes"] for rule in rules if rule["action"] == "FailJob"]
    (end,) = ends
    assert end == {"containerName": "train", "operator": "In", "values": sorted(STOPS)}
    assert container_of(job)["name"] == "train"


def test_a_tpu_slice_starts_anew_as_a_whole(tpu):
    spec = tpu["spec"]
    assert spec["failurePolicy"]["maxRestarts"] >= 10
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0
    assert spec["network"] == {"enableDNSHostnames": True, "subdomain": tpu["metadata"]["name"]}


def test_chips_fill_the_topology(tpu):
    job = tpu["spec"]["replicatedJobs"][0]["template"]["spec"]
    topology = job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    rows, columns = map(int, topology.split("x"))
    chips = container_of(job)["resources"]["limits"]["google.com/tpu"]
    assert rows * columns == job["completions"] * chips


def test_gpu_processes_find_the_first(gpu):
    service, job = gpu
    name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    container = container_of(job["spec"])
    flags = dict(word.split("=", 1) for word in container["args"])
    host, port = flags["--coordinator"].split(":")
    assert host == f"{name}-0.{pod['subdomain']}"
    assert {"containerPort": int(port)} in container["ports"]
    assert int(flags["--processes"]) == job["spec"]["completions"]
    variable = re.fullmatch(r"\$\((\w+)\)", flags["--process"]).group(1)
    (index,) = [entry for entry in container["env"] if entry["name"] == variable]
    assert "job-completion-index" in index["valueFrom"]["fieldRef"]["fieldPath"]


def test_gpu_pods_that_saved_are_not_counted_as_failed(gpu):
    rules = gpu[1]["spec"]["podFailurePolicy"]["rules"]
    ignored = [rule for rule in rules if rule["action"] == "Ignore"]
    assert [rule["onExitCodes"]["values"] for rule in ignored if "onExitCodes" in rule] == [[75]]
    assert any("onPodConditions" in rule for rule in ignored)


def test_the_image_holds_what_the_manifests_start(root):
    text = (root / "launch" / "gke" / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for word in line.split()}
    assert {"flcl", "configs", "launch", "pyproject.toml", "constraints.txt"} <= copied
    assert all((root / name).exists() for name in copied)
    assert "-c constraints.txt" in text
