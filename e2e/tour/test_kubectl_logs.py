"""kubectl logs with its options, of containers that live, have ended and were restarted."""

import datetime
import re

import pytest
from harness.kubelet import container_status
from harness.manifests import pod, shell

TWO_LIVES = """
if [ ! -e /state/second ]; then touch /state/second; echo first life; exit 3; fi
echo second life
sleep 100000
"""
COUNT = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 0.1; done"
STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z) (.*)")


@pytest.fixture(scope="module")
def talks(cluster, shared_space):
    shared_space.apply(pod(
        "talks",
        shell("counts", f"{COUNT}; echo to stderr >&2; sleep 100000", cluster.image),
        shell("lives", TWO_LIVES, cluster.image, volumeMounts=[{"name": "state", "mountPath": "/state"}]),
        labels={"app": "talks"}, volumes=[{"name": "state", "emptyDir": {}}]))
    shared_space.wait_for("pod", "talks", lambda found: (container_status(found, "lives") or {}).get("restartCount") == 1
                          and "running" in container_status(found, "lives")["state"], "to be restarted once")
    with shared_space.following("logs", "--follow", "talks", "--container", "counts") as log:
        log.wait_for_line("to stderr")
    return shared_space


def lines(space, *arguments):
    return space.kubectl("logs", *arguments).stdout.splitlines()


def test_of_both_lives(talks):
    assert lines(talks, "talks", "--container", "lives", "--previous") == ["first life"]
    assert lines(talks, "talks", "--container", "lives") == ["second life"]
    refused = talks.kubectl("logs", "talks", "--container", "counts", "--previous", check=False)
    assert refused.returncode != 0 and "previous terminated container" in refused.stderr


def test_parts_of_a_log(talks):
    counted = [f"line {number}" for number in range(1, 11)]
    assert lines(talks, "talks", "--container", "counts") == [*counted, "to stderr"]
    assert lines(talks, "talks", "--container", "counts", "--tail=3") == [*counted[-2:], "to stderr"]
    assert lines(talks, "talks", "--container", "counts", "--limit-bytes=14") == counted[:2]
    assert lines(talks, "talks", "--container", "counts", "--since=1h") == [*counted, "to stderr"]
    stamped = [STAMPED.fullmatch(line) for line in lines(talks, "talks", "--container", "counts", "--timestamps")]
    assert [one[2] for one in stamped] == [*counted, "to stderr"]
    times = [one[1] for one in stamped]
    assert times == sorted(times)
    # --since-time counts whole seconds.
    second = datetime.datetime.fromisoformat(times[4][:19])
    later = [one[2] for one in stamped if datetime.datetime.fromisoformat(one[1][:19]) >= second]
    assert lines(talks, "talks", "--container", "counts", f"--since-time={times[4][:19]}Z") == later


def test_of_all_containers(talks):
    expected = {*(f"[pod/talks/counts] line {number}" for number in range(1, 11)), "[pod/talks/counts] to stderr",
                "[pod/talks/lives] second life"}
    assert set(lines(talks, "talks", "--all-containers", "--prefix")) == expected
    assert set(lines(talks, "--selector", "app=talks", "--all-containers", "--prefix", "--tail=-1")) == expected


def test_to_the_end_of_a_container(cluster, talks):
    talks.apply(pod("ends", shell("main", f"{COUNT}; printf 'no newline'", cluster.image), restartPolicy="Never"))
    talks.wait_for("pod", "ends", lambda found: found["status"]["phase"] != "Pending", "to start")
    with talks.following("logs", "--follow", "ends") as log:
        assert log.wait() == 0
        assert log.lines == [*(f"line {number}" for number in range(1, 11)), "no newline"]
    found = talks.wait_for("pod", "ends", lambda found: found["status"]["phase"] == "Succeeded", "to succeed")
    assert container_status(found, "main")["state"]["terminated"]["exitCode"] == 0
    assert lines(talks, "ends", "--tail=1") == ["no newline"]
