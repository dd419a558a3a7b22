"""Twenty pods, several at once, with only a few uids to share: afterwards the host is as it was before."""

import concurrent.futures

from harness import host
from harness.daemon import eventually

PODS = 20
AT_ONCE = 4

# Fewer uids than pods: one that is not given back is missed.
HUSKD_CONFIGURATION = {"vm": {"user_count": AT_ONCE + 2}}


def life(huskd, image, number):
    pod = huskd.run_pod(f"leftover{number}")
    container = pod.run("main", image, ["/bin/sh", "-c", "echo hello; exit 3"])
    assert container.wait().exit_code == 3
    assert container.log() == "hello\n"
    if number % 2 == 0:
        pod.run("second", image, ["/bin/sleep", "100000"])
    if number % 4 == 0:
        # Without the stop that usually comes first.
        huskd.client.RemovePodSandbox(pod_sandbox_id=pod.id)
    else:
        pod.remove()


def run_pods(huskd, image, numbers):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(life, huskd, image, number) for number in numbers]:
            future.result()


def test_nothing_is_left_of_twenty_pods(huskd, image):
    # As many at once as later, so that pools and databases have their size.
    run_pods(huskd, image, range(100, 100 + AT_ONCE))
    before, descriptors = huskd.snapshot(), host.open_files(huskd.pid)

    run_pods(huskd, image, range(PODS))

    def difference():
        now = huskd.snapshot()
        changed = {kind: (sorted(before[kind] - now[kind]), sorted(now[kind] - before[kind]))
                   for kind in before if now[kind] != before[kind]}
        files = host.open_files(huskd.pid)
        if len(files) > len(descriptors):
            changed["descriptors"] = (descriptors, files)
        return changed

    # gRPC and the kernel let go of some things a moment later.
    eventually(lambda: not difference(), lambda: f"the host to be as before (gone, new): {difference()}", seconds=30)
    assert huskd.pods() == []
    assert huskd.containers() == []
    zombies = [pid for pid in host.process_ids()
               if host.state(pid) == "Z" and f"PPid:\t{huskd.pid}\n" in host.read_text(f"/proc/{pid}/status")]
    assert zombies == []
