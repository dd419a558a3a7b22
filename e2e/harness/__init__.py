import os

# Before anything imports grpc. An idle channel of gRPC's Python client looks at its connection only this often; by
# default every five seconds, and so late does it see that a huskd is there, or that one closes.
os.environ.setdefault("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "50")
