"""What huskd refuses, and how: each error names what is wrong. No pod is booted."""

import grpc
import pytest

from harness import cri
from harness.cri import api

# Calls that come with later versions, each with a request that would otherwise be fine.
LATER_CALLS = {"CheckpointContainer"}


def refusal(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **fields)
    return error.value.code(), error.value.details()


@pytest.mark.parametrize("field, options", [
    ("network", {"network": api.NODE}), ("pid", {"pid": api.NODE}), ("ipc", {"ipc": api.NODE})])
def test_host_namespaces_are_refused_by_name(huskd, field, options):
    config = huskd.pod_config(linux={"security_context": {"namespace_options": options}})
    code, details = refusal(huskd.client.RunPodSandbox, config=config)
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION,
                    grpc.StatusCode.UNIMPLEMENTED)
    words = details.lower()
    assert field in words and "namespace" in words or f"host{field}" in words
    assert huskd.pods() == []


def test_pod_without_metadata_is_refused(huskd):
    assert refusal(huskd.client.RunPodSandbox, config={})[0] == grpc.StatusCode.INVALID_ARGUMENT
    code, details = refusal(huskd.client.RunPodSandbox, config={"metadata": {"name": "x", "namespace": "y"}})
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "uid" in details


def test_unknown_ids(huskd):
    unknown = "0123456789abcdef" * 4
    client = huskd.client
    assert refusal(client.PodSandboxStatus, pod_sandbox_id=unknown)[0] == grpc.StatusCode.NOT_FOUND
    assert refusal(client.ContainerStatus, container_id=unknown)[0] == grpc.StatusCode.NOT_FOUND
    assert refusal(client.StartContainer, container_id=unknown)[0] == grpc.StatusCode.NOT_FOUND
    assert refusal(client.ExecSync, container_id=unknown, cmd=["/bin/true"])[0] == grpc.StatusCode.NOT_FOUND
    code, details = refusal(client.CreateContainer, pod_sandbox_id=unknown, sandbox_config=huskd.pod_config(),
                            config={"metadata": {"name": "c"}, "image": {"image": "i"}})
    assert code == grpc.StatusCode.NOT_FOUND
    assert unknown in details
    # Ends of what is not there are done already.
    client.StopContainer(container_id=unknown, timeout=0)
    client.RemoveContainer(container_id=unknown)
    client.StopPodSandbox(pod_sandbox_id=unknown)
    client.RemovePodSandbox(pod_sandbox_id=unknown)


@pytest.mark.parametrize("identifier", ["", "../../etc", "a/b", "x" * 4096, "ä"],
                         ids=["empty", "parent", "slash", "long", "not-ascii"])
def test_ids_that_are_none(huskd, identifier):
    code, _ = refusal(huskd.client.PodSandboxStatus, pod_sandbox_id=identifier)
    assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("reference", ["", "example/UPPER", "host/repo@sha256:../../x", "a b", "repo:tag:tag", "x@sha256:12"])
def test_bad_references(huskd, reference):
    code, details = refusal(huskd.client.PullImage, image={"image": reference})
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert reference in details


def test_images_that_are_not_there(huskd, registry):
    assert not huskd.client.ImageStatus(image={"image": f"{registry.address}/no/such:1"}).HasField("image")
    huskd.client.RemoveImage(image={"image": f"{registry.address}/no/such:1"})
    code, details = refusal(huskd.client.PullImage, image={"image": f"{registry.address}/no/such:1"})
    assert code == grpc.StatusCode.NOT_FOUND
    assert "no/such" in details


def test_a_registry_that_does_not_answer(huskd):
    code, details = refusal(huskd.client.PullImage, image={"image": "127.0.0.1:1/some/image:1"})
    # The kubelet looks for this prefix, which it finds only under the code that adds none of its own.
    assert code == grpc.StatusCode.UNKNOWN
    assert details.startswith("RegistryUnavailable: ")
    assert "127.0.0.1:1" in details


def test_images_come_and_go(huskd, registry):
    reference = registry.push("refusals/image")
    pulled = huskd.pull(reference)
    status = huskd.client.ImageStatus(image={"image": reference}).image
    assert status.id == pulled
    assert status.size > 0
    assert list(status.repo_tags) == [reference]
    assert len(status.repo_digests) == 1
    assert [image.id for image in huskd.client.ListImages().images] == [pulled]
    by_digest = huskd.pull(status.repo_digests[0])
    assert by_digest == pulled
    usage = huskd.client.ImageFsInfo().image_filesystems[0]
    assert usage.timestamp > 0 and usage.used_bytes.value > 0 and usage.fs_id.mountpoint
    huskd.client.RemoveImage(image={"image": reference})
    assert list(huskd.client.ListImages().images) == []


def test_every_call_is_present(huskd):
    """A call of a later version says UNIMPLEMENTED in words of its own; gRPC's words for a call that nobody wrote are
    empty."""
    for name in cri.all_methods():
        try:
            if cri.is_streaming(name):
                # Events have no end, and nothing happens now.
                call = getattr(huskd.client, name)(deadline=2 if name == "GetContainerEvents" else 10)
                next(iter(call), None)
                call.cancel()
            else:
                getattr(huskd.client, name)(deadline=30)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                assert error.details(), f"{name} is not there at all"
                assert name in LATER_CALLS, f"{name} should work in this version"


def test_version_and_status(huskd):
    version = huskd.client.Version()
    assert version.version == "0.1.0"
    assert version.runtime_name and version.runtime_version and version.runtime_api_version
    status = huskd.client.Status(verbose=True)
    conditions = {condition.type: condition for condition in status.status.conditions}
    assert conditions["RuntimeReady"].status and conditions["NetworkReady"].status
    assert huskd.client.RuntimeConfig().HasField("linux")
