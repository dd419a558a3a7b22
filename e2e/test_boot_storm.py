"""Twenty RunPodSandbox calls at once: read-only calls do not wait for them. bench measures how fast they are."""

from harness.storm import percentile, storm

PODS = 20


def test_read_only_calls_do_not_wait_for_boots(huskd, image):
    ids, errors, durations, sampler = storm(huskd, PODS)
    assert errors == []
    assert len(set(ids)) == PODS
    assert sampler.failures == []
    for name, latencies in sampler.latencies.items():
        print(f"{name}: {len(latencies)} calls during the storm, p50 {1000 * percentile(latencies, 0.5):.1f} ms, "
              f"p99 {1000 * percentile(latencies, 0.99):.1f} ms, longest {1000 * max(latencies):.1f} ms")
        # A call that queued behind the boots would take as long as one.
        assert percentile(latencies, 0.99) < min(durations), f"{name} waited for a boot"
    print(f"pods were ready after {min(durations):.1f} to {max(durations):.1f} s")
    for pod_id in ids:
        assert huskd.client.PodSandboxStatus(pod_sandbox_id=pod_id).status.network.ip
    calls = [huskd.client.future("StopPodSandbox", pod_sandbox_id=pod_id) for pod_id in ids]
    for call in calls:
        call.result()
    for pod_id in ids:
        huskd.client.RemovePodSandbox(pod_sandbox_id=pod_id)
    assert huskd.pods() == []
    assert huskd.vm_processes() == []
