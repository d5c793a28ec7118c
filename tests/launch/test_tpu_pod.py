"""launch/tpu_pod.sh against a stand-in for gcloud: which commands, in which order, which words."""

import shlex
import shutil

import pytest

PLACE = ["--zone=us-west4-a", "--project=mine"]
PROGRAM = (
    "--config=configs/funlora_cifar100.py",
    "--workdir=/mnt/flcl/c100",
    "--config.name=a 'b' $c",
)
ALL = ["flcl-worker {} {}".format(i, "{}") for i in range(4)]
STATE = "_worker.sh state"
SHARE = "10.0.0.2:/share"


@pytest.fixture
def pod(cluster):
    """Calls launch/tpu_pod.sh; returns the process and the calls of gcloud and tar."""
    cluster.stand_in("gcloud", "tar")

    def call(*words: str, answers: dict | None = None, **env: str):
        cluster.forget()
        cluster.answers({"(state)": [[0, "READY\n"]], **(answers or {})})
        done = cluster.run(cluster.root / "launch" / "tpu_pod.sh", *words, **env)
        return done, cluster.calls()

    return call


@pytest.fixture
def created(pod):
    """A slice that was created, and on which the program was started."""
    done, _ = pod("create", "pod", *PLACE, "--type=v5litepod-16", "--spot", f"--nfs={SHARE}")
    assert done.returncode == 0, done.stderr
    done, _ = pod("run", "pod", *PROGRAM)
    assert done.returncode == 0, done.stderr
    return pod


def states(*found: str) -> list:
    """What the hosts answer, look by look: one word for all, or one for each, divided by commas."""
    looks = []
    for look in found:
        each = look.split(",") if "," in look else [look] * len(ALL)
        lines = (line.format(word) for line, word in zip(ALL, each, strict=True))
        looks.append([0, "\n".join(lines) + "\n"])
    return looks


def steps(calls: list[list[str]]) -> list[str]:
    """Calls in short, without those that only look."""
    names = []
    for call in calls:
        if call[0] == "tar":
            names.append("tar")
            continue
        assert call[:3] == ["gcloud", "compute", "tpus"]
        assert call[-2:] == PLACE, "every command says where"
        command = next((word for word in call if word.startswith("--command=")), None)
        if command is None:
            names.append(" ".join(call[3:5]))
        else:
            host = next(word for word in call if word.startswith("--worker="))
            verb = command.split("_worker.sh ", 1)[1].split()[0]
            names.append(f"{host.removeprefix('--worker=')} {verb}")
    return [name for name in names if not name.endswith((" describe", " state"))]


def remote_command(call: list[str]) -> str:
    return next(word for word in call if word.startswith("--command=")).removeprefix("--command=")


def program_of(calls: list[list[str]]) -> list[str]:
    """The words that hosts start the program with, as their shell reads them."""
    start = next(call for call in calls if any("_worker.sh start" in word for word in call))
    assert "--worker=all" in start
    words = shlex.split(remote_command(start))
    assert words[:4] == ["bash", "flcl/launch/_worker.sh", "start", "/mnt/flcl/c100"]
    return words[5:]


CREATE = ["tpu-vm create"]
SETUP = ["tar", "tpu-vm scp", "all setup"]
RUN = ["0 claim", "all start"]
AFRESH = ["tpu-vm delete", *CREATE, *SETUP, *RUN]


def test_create(pod):
    done, calls = pod(
        "create", "pod", *PLACE, "--type=v5litepod-16", "--spot", "--create-flag=--tags=x"
    )
    assert done.returncode == 0, done.stderr
    words = ["pod", "--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]
    expected = ["tpu-vm", "create", *words, "--spot", "--tags=x", *PLACE]
    assert calls == [["gcloud", "compute", "tpus", *expected]]


def test_a_queued_resource_is_waited_for(pod):
    waits = [[0, "WAITING_FOR_RESOURCES\n"], [0, "PROVISIONING\n"], [0, "ACTIVE\n"]]
    words = ("create", "pod", *PLACE, "--type=v6e-64", "--queued", "--poll=0")
    done, calls = pod(*words, answers={"(state.state)": waits})
    assert done.returncode == 0, done.stderr
    create, *looks = calls
    resource = [
        "pod",
        "--node-id=pod",
        "--accelerator-type=v6e-64",
        "--runtime-version=v2-alpha-tpuv6e",
    ]
    assert create[3:-2] == ["queued-resources", "create", *resource]
    assert len(looks) == 3
    assert all(look[3:6] == ["queued-resources", "describe", "pod"] for look in looks)
    done, _ = pod(*words, answers={"(state.state)": [[0, "FAILED\n"]]})
    assert done.returncode == 1
    assert "the queued resource pod ended as FAILED" in done.stderr
    _, calls = pod("delete", "pod")
    assert calls[0][3:-2] == ["queued-resources", "delete", "pod", "--force", "--quiet"]


def test_setup_copies_the_checkout_and_installs_on_all_hosts(created, cluster):
    done, calls = created("setup", "pod")
    assert done.returncode == 0, done.stderr
    assert steps(calls) == SETUP
    pack, copy, install = calls
    assert {"flcl", "launch", "configs", "constraints.txt", "pyproject.toml"} <= set(pack)
    assert not {".venv", ".git", "runs"} & set(pack)
    assert copy[5:8] == [pack[2], "pod:flcl.tar.gz", "--worker=all"]
    assert remote_command(install).endswith(f"&& bash flcl/launch/_worker.sh setup {SHARE}")


def test_setup_may_clone(created):
    words = (
        "setup",
        "pod",
        "--clone=https://github.com/me/flcl.git",
        "--ref=v1",
        "--python=python3.12",
    )
    done, calls = created(*words)
    assert done.returncode == 0, done.stderr
    (call,) = calls
    command = remote_command(call)
    assert "git clone --quiet https://github.com/me/flcl.git flcl" in command
    assert "git fetch --quiet origin v1" in command
    assert f"FLCL_PYTHON=python3.12 bash flcl/launch/_worker.sh setup {SHARE}" in command


def test_run_starts_the_program_on_all_hosts_after_a_claim(created):
    done, calls = created("run", "pod", "--ssh-flag=--internal-ip", *PROGRAM)
    assert done.returncode == 0, done.stderr
    assert steps(calls) == RUN
    assert program_of(calls) == list(PROGRAM)
    assert all("--internal-ip" in call for call in calls)
    claim, start = (shlex.split(remote_command(call)) for call in calls)
    assert claim[2:4] == ["claim", "/mnt/flcl/c100"]
    assert claim[4] == start[4], "the mark that all hosts have to see"


def test_resume_passes_the_same_command(created):
    preempted = {"(state)": [[0, "PREEMPTED\n"]]}
    done, calls = created("resume", "pod", answers=preempted)
    assert done.returncode == 0, done.stderr
    assert steps(calls) == AFRESH
    assert program_of(calls) == list(PROGRAM)
    (create,) = [call for call in calls if "create" in call]
    assert "--spot" in create and "--accelerator-type=v5litepod-16" in create


def test_resume_leaves_a_running_program_alone(created):
    done, calls = created("resume", "pod", answers={STATE: states("running")})
    assert done.returncode == 2
    assert "pod still runs" in done.stderr
    assert steps(calls) == []


def test_what_is_gone_is_not_deleted(created):
    gone = {"(state)": [[1, "ERROR: NOT_FOUND: Resource was not found\n"]]}
    _, calls = created("resume", "pod", answers=gone)
    assert steps(calls) == AFRESH[1:]


@pytest.mark.parametrize("gone", ["PREEMPTED", "TERMINATED", "STOPPED"])
def test_watch_resumes_after_a_preemption(gone, created):
    node = [[0, f"{state}\n"] for state in ("READY", gone, gone, "CREATING", "READY")]
    hosts = states("running", "running", "exited 0")
    done, calls = created("watch", "pod", "--poll=0", answers={"(state)": node, STATE: hosts})
    assert done.returncode == 0, done.stderr
    assert steps(calls) == AFRESH
    assert program_of(calls) == list(PROGRAM)
    assert f"pod is {gone}" in done.stdout


@pytest.mark.parametrize(
    "look",
    [
        "exited 75",
        "exited 75,exited 75,exited 134,exited 75",
        "exited 134,exited 134,lost,exited 134",
    ],
)
def test_watch_resumes_a_program_that_was_stopped(look, created):
    hosts = states("running", look, "running", "exited 0")
    done, calls = created("watch", "pod", "--poll=0", answers={STATE: hosts})
    assert done.returncode == 0, done.stderr
    assert steps(calls) == AFRESH
    assert program_of(calls) == list(PROGRAM)


@pytest.mark.parametrize(
    ("look", "code"),
    [
        ("exited 0", 0),
        ("exited 1", 1),
        ("exited 2", 2),
        ("exited 134,exited 1,exited 134,exited 134", 1),
        ("exited 137", 137),
    ],
)
def test_watch_ends_with_the_code_of_the_program(look, code, created):
    done, calls = created("watch", "pod", "--poll=0", answers={STATE: states("running", look)})
    assert done.returncode == code
    assert steps(calls) == []


def test_watch_waits_for_hosts_but_not_for_ever(created):
    """One failed, the others still wait for it; one is done, the others are about to be."""
    hosts = states("exited 1,running,running,running")
    done, calls = created("watch", "pod", "--poll=0", answers={STATE: hosts})
    assert done.returncode == 1
    looks = len([call for call in calls if any(STATE in word for word in call)])
    assert looks == 10
    hosts = states("lost,running,running,running") * 10 + states("running", "exited 0")
    done, calls = created("watch", "pod", "--poll=0", answers={STATE: hosts})
    assert done.returncode == 0
    assert steps(calls) == AFRESH
    hosts = states("exited 0,running,running,running") * 12 + states("exited 0")
    done, calls = created("watch", "pod", "--poll=0", answers={STATE: hosts})
    assert (done.returncode, steps(calls)) == (0, [])


def test_watch_tries_again_when_a_slice_cannot_be_had(created):
    answers = {
        "(state)": [[0, "PREEMPTED\n"], [0, "PREEMPTED\n"], [1, "NOT_FOUND\n"], [1, "NOT_FOUND\n"]],
        "tpu-vm create": [[1, "ERROR: no capacity\n"], [0, ""]],
        STATE: states("exited 0"),
    }
    answers["(state)"] += [[0, "READY\n"]]
    done, calls = created("watch", "pod", "--poll=0", answers=answers)
    assert done.returncode == 0, done.stderr
    assert steps(calls) == ["tpu-vm delete", *CREATE, *CREATE, *SETUP, *RUN]
    assert "no capacity" in done.stderr


def test_watch_gives_up_after_as_many_resumes_as_allowed(created):
    hosts = {STATE: states("exited 75")}
    done, calls = created("watch", "pod", "--poll=0", "--restarts=2", answers=hosts)
    assert done.returncode == 1
    assert steps(calls) == AFRESH * 2
    assert "resumed 2 times" in done.stderr


def test_watch_starts_the_program_on_hosts_that_ran_none(created):
    """A slice made by hand is used as it is."""
    hosts = {STATE: states("idle", "running", "exited 0")}
    done, calls = created("watch", "pod", "--poll=0", answers=hosts)
    assert done.returncode == 0, done.stderr
    assert steps(calls) == [*SETUP, *RUN]


@pytest.mark.parametrize("key", ["_worker.sh claim", "_worker.sh setup"])
def test_watch_does_not_rent_a_new_slice_for_a_mistake(key, created):
    answers = {key: [[2, "error: workdir /mnt/a: not writable\n"]], STATE: states("exited 75")}
    done, calls = created("watch", "pod", "--poll=0", answers=answers)
    assert done.returncode == 2
    assert "not writable" in done.stderr and "left as it is" in done.stderr
    assert steps(calls).count("tpu-vm delete") == 1 and steps(calls)[-1] != "tpu-vm delete"


def test_watch_with_other_words_runs_those(created):
    other = [*PROGRAM[:-1], "--config.seed=7"]
    hosts = {STATE: states("exited 0")}
    done, calls = created("watch", "pod", "--poll=0", *other, answers=hosts)
    assert done.returncode == 0, done.stderr
    assert steps(calls) == [*SETUP, *RUN] and program_of(calls) == other
    hosts = {STATE: states("running")}
    done, calls = created("watch", "pod", "--poll=0", *PROGRAM, answers=hosts)
    assert done.returncode == 2 and "still runs" in done.stderr and steps(calls) == []
    done, _ = created("status", "pod")
    assert "--config.seed=7" in done.stdout  # what was refused is not remembered


def test_watch_gives_up_when_nothing_answers(created):
    silence = {"(state)": [[1, "ERROR: no network\n"]]}
    done, calls = created("watch", "pod", "--poll=0", answers=silence)
    assert done.returncode == 1
    assert "ERROR: no network" in done.stderr and "gave no answer" in done.stderr
    assert steps(calls) == []


def test_what_was_stopped_on_purpose_is_not_resumed(created):
    _, calls = created("stop", "pod")
    assert steps(calls) == ["all stop"]
    done, calls = created("watch", "pod", "--poll=0", answers={STATE: states("exited 75")})
    assert (done.returncode, steps(calls)) == (75, [])
    created("run", "pod", *PROGRAM)
    hosts = {STATE: states("exited 75", "exited 0")}
    done, calls = created("watch", "pod", "--poll=0", answers=hosts)
    assert (done.returncode, steps(calls)) == (0, AFRESH)


def test_watch_alone_does_everything(pod):
    """From no slice to the end of the program."""
    node = {"(state)": [[1, "NOT_FOUND\n"], [1, "NOT_FOUND\n"], [0, "READY\n"]]}
    words = ("watch", "pod", *PLACE, "--type=v4-32", "--poll=0", *PROGRAM)
    done, calls = pod(*words, answers={**node, STATE: states("exited 0")})
    assert done.returncode == 0, done.stderr
    assert steps(calls) == [*CREATE, *SETUP, *RUN]
    assert program_of(calls) == list(PROGRAM)


def test_logs_status_and_delete(created, cluster):
    _, calls = created("logs", "pod", "--worker=3")
    assert calls[0][3:7] == ["tpu-vm", "ssh", "pod", "--worker=3"]
    assert remote_command(calls[0]) == "bash flcl/launch/_worker.sh log 50"
    done, _ = created("status", "pod", answers={STATE: states("running")})
    assert "pod: READY" in done.stdout and "flcl-worker 3 running" in done.stdout
    assert shlex.split(done.stdout.splitlines()[-1]) == ["launch/train.py", *PROGRAM]
    done, calls = created("delete", "pod")
    assert steps(calls) == ["tpu-vm delete"]
    done, calls = created("watch", "pod", *PLACE)
    assert done.returncode == 2
    assert "nothing was run on pod yet" in done.stderr
    assert calls == []


@pytest.mark.parametrize("word", ["--dry-run", "--zone=b"])
def test_options_behind_the_words_of_the_program_are_refused(word, created):
    done, calls = created("watch", "pod", *PROGRAM, word)
    assert done.returncode == 2 and calls == []
    assert f"{word} is an option of this script" in done.stderr


def test_a_dry_run_prints_every_command_and_runs_none(pod, cluster):
    words = ("watch", "pod", *PLACE, "--type=v5litepod-16", f"--nfs={SHARE}", "--dry-run", *PROGRAM)
    done, calls = pod(*words)
    assert done.returncode == 0, done.stderr
    assert calls == []
    assert not list(cluster.home.rglob("*")), "nothing is remembered"
    printed = [shlex.split(line, comments=True) for line in done.stdout.splitlines()]
    printed = [line for line in printed if line and line[0] in ("gcloud", "tar")]
    assert steps(printed) == AFRESH
    assert program_of(printed) == list(PROGRAM)
    looked = [line for line in printed if "describe" in line]
    assert len(looked) == 2 and any(STATE in word for line in printed for word in line)
    # What was printed is what would have been run.
    (cluster.folder / "printed.sh").write_text(done.stdout)
    again = cluster.run(cluster.folder / "printed.sh")
    assert again.returncode == 0, again.stderr
    assert cluster.calls() == printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly", "pod"], "knows no command 'fly'"),
        (["create"], "create needs a NAME"),
        (["create", "Pod"], "create needs a NAME of small letters"),
        (["create", "pod", *PLACE], "create needs --type"),
        (["create", "pod", "--type=v4-8"], "create needs --zone"),
        (["create", "pod", *PLACE, "--typ=v4-8"], "create knows no option '--typ=v4-8'"),
        (["run", "pod", *PLACE], "run needs the arguments of launch/train.py"),
        (["run", "pod", *PLACE, "--config=c.py"], "run needs --workdir=DIR"),
        (["resume", "pod", *PLACE], "nothing was run on pod yet"),
        (["watch", "pod", *PLACE, "--poll=often"], "--poll=often: a number is needed"),
    ],
)
def test_mistakes_are_one_line(words, said, pod):
    done, calls = pod(*words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and said in line
    assert [call for call in calls if call[1] != "config"] == []


def test_without_gcloud(cluster):
    for name in ("bash", "dirname"):
        (cluster.bin / name).symlink_to(shutil.which(name))
    script = cluster.root / "launch" / "tpu_pod.sh"
    done = cluster.run(script, "status", "pod", *PLACE, PATH=str(cluster.bin))
    assert done.returncode == 2
    assert "there is no gcloud here" in done.stderr


def test_help_lists_every_command(cluster):
    done = cluster.run(cluster.root / "launch" / "tpu_pod.sh", "--help")
    assert done.returncode == 0
    for command in (
        "create",
        "setup",
        "run",
        "watch",
        "resume",
        "logs",
        "status",
        "stop",
        "delete",
    ):
        assert f"launch/tpu_pod.sh {command}" in done.stdout
