"""What Grafana calls: the plugin's gRPC services and the application they share."""

from aiostream_ds._grpc.betterproto_import import import_betterproto2

import_betterproto2()
