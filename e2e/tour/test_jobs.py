"""Jobs: how many of their pods run, how often they are tried again, and exit codes that decide; a CronJob's."""

import datetime

import pytest

from harness.manifests import pod_spec, shell


@pytest.fixture(scope="module")
def jobs(cluster, shared_space):
    """All at once: each waits for pods that end, and some for the controller's own pauses."""
    def job(name, script, **fields):
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                "spec": {"template": {"spec": pod_spec(shell("main", script, cluster.image), restartPolicy="Never")}, **fields}}

    by_hand = job("unused", "echo by the clock")
    shared_space.apply(
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "clock"},
         "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": by_hand["spec"]}}},
        job("indexed", "echo index $JOB_COMPLETION_INDEX", completions=3, parallelism=2, completionMode="Indexed"),
        job("tried-again", "echo once more; exit 7", backoffLimit=1),
        job("told", "exit 42", backoffLimit=6, podFailurePolicy={"rules": [
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}}]}))
    return shared_space


def condition(job, kind):
    return next((one for one in job["status"].get("conditions", []) if one["type"] == kind and one["status"] == "True"), None)


def pods_of(space, job):
    return space.list("pods", "--selector", f"job-name={job}")


def ended(pod):
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]


def test_completions_and_parallelism(jobs):
    job = jobs.wait_for("job", "indexed", lambda job: condition(job, "Complete"), "to complete")
    assert (job["status"]["succeeded"], job["status"]["completedIndexes"]) == (3, "0-2")
    pods = pods_of(jobs, "indexed")
    logs = sorted(jobs.kubectl("logs", pod["metadata"]["name"]).stdout for pod in pods)
    assert logs == ["index 0\n", "index 1\n", "index 2\n"]

    def moment(text):
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    # The third was made when one of the first two had ended.
    made = sorted(moment(pod["metadata"]["creationTimestamp"]) for pod in pods)
    first_end = min(moment(ended(pod)["finishedAt"]) for pod in pods)
    assert made[1] <= first_end <= made[2]


def test_a_job_that_fails_is_tried_again_as_often_as_it_may(jobs):
    job = jobs.wait_for("job", "tried-again", lambda job: condition(job, "Failed"), "to fail")
    assert condition(job, "Failed")["reason"] == "BackoffLimitExceeded"
    assert job["status"]["failed"] == 2
    assert [(ended(pod)["exitCode"], ended(pod)["reason"]) for pod in pods_of(jobs, "tried-again")] == [(7, "Error")] * 2


def test_an_exit_code_that_ends_the_job(jobs):
    job = jobs.wait_for("job", "told", lambda job: condition(job, "Failed"), "to fail")
    failed = condition(job, "Failed")
    assert failed["reason"] == "PodFailurePolicy" and "exit code 42" in failed["message"]
    assert len(pods_of(jobs, "told")) == 1


def test_a_cron_job(jobs):
    cron_job = jobs.wait_for("cronjob", "clock", lambda cron_job: cron_job["status"].get("lastSuccessfulTime"), "to succeed")
    made = [job for job in jobs.list("jobs") for owner in job["metadata"].get("ownerReferences", [])
            if owner["uid"] == cron_job["metadata"]["uid"]]
    assert made and jobs.kubectl("logs", f"job/{made[0]['metadata']['name']}").stdout == "by the clock\n"
