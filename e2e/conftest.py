"""Fixtures of the end-to-end tests. Each test file has a huskd of its own; the registry's images are made here."""

import shutil
import signal
import tempfile

import pytest

from harness.daemon import Huskd
from harness.registry import RegistryServer

# Every test file's own instance number: bridges and subnets stay apart from those of a run that died.
INSTANCE = {"test_pod": 1, "test_refusals": 2, "test_restart": 3, "test_vm_death": 4, "test_leftovers": 5,
            "test_boot_storm": 6, "test_images": 7,
            "test_registries": 8, "test_volumes": 9, "test_virtiofs": 20, "test_resources": 21, "test_lifecycle": 22,
            "test_security": 23, "test_network": 24, "test_devices": 25, "test_stats": 26, "test_streaming": 27,
            "test_metrics": 28, "test_hostile": 29, "test_output": 30, "test_huskctl_streams": 32,
            "test_huge_pages": 33, "test_memory_on_demand": 41,
            "test_streaming_tls": 34, "test_port_forward": 31, "test_full_disk": 36, "test_resize_faults": 37, "test_cluster": 43, "test_churn": 44, "test_kubelet": 35}


def pytest_configure():
    def interrupt(*_):
        raise KeyboardInterrupt
    # Whoever ends a run early by SIGTERM gets the fixtures' clean-up too.
    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(scope="session")
def registry():
    directory = tempfile.mkdtemp(prefix="husk-registry-", dir="/var/tmp")
    server = None
    try:
        server = RegistryServer(directory)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def huskd(request):
    """A running huskd. A module changes its configuration by a dictionary HUSKD_CONFIGURATION."""
    name = request.module.__name__
    daemon = Huskd(INSTANCE[name], **getattr(request.module, "HUSKD_CONFIGURATION", {}))
    request.module.huskd_instance = daemon
    try:
        daemon.start()
        yield daemon
    finally:
        failed = request.session.testsfailed
        if failed:
            print(f"\n--- the end of huskd's log\n{daemon.log_tail(150)}")
        left = daemon.remove_everything()
    assert not left, "\n".join(left)


@pytest.fixture(scope="module")
def image(registry, huskd):
    """The sample image, pulled."""
    reference = registry.push("husk/sample")
    huskd.pull(reference)
    return reference


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    daemon = getattr(item.module, "huskd_instance", None)
    if report.failed and daemon is not None:
        report.sections.append(("the end of huskd's log", daemon.log_tail()))
