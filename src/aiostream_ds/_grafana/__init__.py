"""Room `grafana`: the gRPC server, what Grafana calls, and the life of the process under it."""

from aiostream_ds._grpc.betterproto_import import import_betterproto2

import_betterproto2()
