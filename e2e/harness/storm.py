"""Many RunPodSandbox calls at once, and what the read-only calls do meanwhile. Used by test_boot_storm and bench."""

import threading
import time

READ_ONLY = {
    "Status": lambda client: client.Status(deadline=30),
    "ListContainers": lambda client: client.ListContainers(deadline=30),
}


def percentile(values, fraction):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


class Sampler:
    """Calls the read-only calls in turns, a call every few milliseconds, until stopped; seconds each one took, by name."""

    def __init__(self, client, interval=0.02):
        self.latencies = {name: [] for name in READ_ONLY}
        self.failures = []
        self._client, self._interval = client, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self):
        while not self._stop.wait(self._interval):
            for name, call in READ_ONLY.items():
                started = time.monotonic()
                try:
                    call(self._client)
                except Exception as error:  # pylint: disable=broad-except  (reported by the caller)
                    self.failures.append(f"{name}: {error}")
                self.latencies[name].append(time.monotonic() - started)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def storm(huskd, pods):
    """Starts `pods` pods at once; (their ids, errors, seconds each took, the sampler of the time until the last one)."""
    durations, ids, errors = [], [], []
    # The calls in flight are held here, so that gRPC's own threads do the waiting.
    with Sampler(huskd.client) as sampler:
        started = time.monotonic()
        done = threading.Semaphore(0)

        def finished(future):
            durations.append(time.monotonic() - started)
            done.release()

        calls = [huskd.client.future("RunPodSandbox", config=huskd.pod_config(f"storm{number}"))
                 for number in range(pods)]
        for call in calls:
            call.add_done_callback(finished)
        for _ in calls:
            done.acquire()
    for call in calls:
        if call.exception() is None:
            ids.append(call.result().pod_sandbox_id)
        else:
            errors.append(str(call.exception()))
    return ids, errors, durations, sampler
