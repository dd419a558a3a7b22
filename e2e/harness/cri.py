"""A CRI client made from the api.proto that huskd was built with: calls by name, without generated stubs."""

import importlib
import os
import pathlib
import subprocess
import sys

import grpc
from google.protobuf import descriptor_pb2

BUILD = pathlib.Path(os.environ.get("HUSK_BUILD_DIRECTORY",
                                    pathlib.Path(__file__).resolve().parents[2] / "build" / "release"))


def _load_messages():
    proto = BUILD / "cri" / "proto" / "api.proto"
    if not proto.exists():
        raise RuntimeError(f"{proto} is missing: build huskd there, or set HUSK_BUILD_DIRECTORY")
    generated = BUILD / "e2e" / "generated"
    module = generated / "api_pb2.py"
    if not module.exists() or module.stat().st_mtime < proto.stat().st_mtime:
        generated.mkdir(parents=True, exist_ok=True)
        subprocess.run(["protoc", f"--proto_path={proto.parent}", f"--python_out={generated}", str(proto)], check=True)
    sys.path.insert(0, str(generated))
    return importlib.import_module("api_pb2")


api = _load_messages()

_METHODS = {method.name: method
            for service in api.DESCRIPTOR.services_by_name.values() for method in service.methods}

_FILE = descriptor_pb2.FileDescriptorProto()
api.DESCRIPTOR.CopyToProto(_FILE)
_STREAMING = {method.name for service in _FILE.service for method in service.method if method.server_streaming}


def all_methods():
    """Names of every call of the CRI, in the order of api.proto."""
    return list(_METHODS)


def is_streaming(name):
    return name in _STREAMING


class CriClient:
    """client.Version(), client.RunPodSandbox(config=...): fields of the request by name, the response's message back.
    Raises grpc.RpcError. `deadline` in seconds is no field but the call's deadline."""

    def __init__(self, socket_path):
        self._channel = grpc.insecure_channel(f"unix://{socket_path}", options=[
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.max_send_message_length", 64 << 20),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ])

    def _prepare(self, name, fields):
        method = _METHODS[name]
        path = f"/{method.containing_service.full_name}/{name}"
        response = getattr(api, method.output_type.name)
        make = self._channel.unary_stream if name in _STREAMING else self._channel.unary_unary
        call = make(path, request_serializer=lambda request: request.SerializeToString(),
                    response_deserializer=response.FromString)
        return call, getattr(api, method.input_type.name)(**fields)

    def future(self, name, deadline=240, **fields):
        call, request = self._prepare(name, fields)
        return call.future(request, timeout=deadline)

    def __getattr__(self, name):
        if name not in _METHODS:
            raise AttributeError(name)

        def invoke(deadline=240, **fields):
            call, request = self._prepare(name, fields)
            return call(request, timeout=deadline)

        return invoke

    def close(self):
        self._channel.close()
