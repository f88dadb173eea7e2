"""gRPC channels to a Triton, with the options that all of them share."""

from __future__ import annotations

import grpc

from tuner.options.endpoint import Endpoint
from tuner.options.tls import Tls

MOST_METADATA_BYTES = 4 << 20
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Error messages are sent as metadata; gRPC's default of 16 KiB is too little for a model's traceback.
    ("grpc.max_metadata_size", MOST_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MOST_METADATA_BYTES),
    # In the shared pool, a dead server would leave a long reconnect back-off for its port.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy from the environment would distort measurements, or not reach a loopback address.
    ("grpc.enable_http_proxy", 0),
)


def open_channel(endpoint: Endpoint) -> grpc.Channel:
    """A channel to an endpoint, which connects with the first call."""
    options = channel_options(endpoint)
    if endpoint.tls is None:
        return grpc.insecure_channel(endpoint.address, options)
    return grpc.secure_channel(endpoint.address, channel_credentials(endpoint.tls), options)


def channel_options(endpoint: Endpoint) -> tuple[tuple[str, int | str], ...]:
    """The options of a channel to an endpoint."""
    if endpoint.tls is None or endpoint.tls.server_name is None:
        return CHANNEL_OPTIONS
    return (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", endpoint.tls.server_name))


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """The credentials of a channel over TLS.

    Raises:
        JobError: see `Tls.context`.
    """
    tls.context()  # checks the files, since gRPC accepts any bytes and fails later without a reason
    key, certificate = tls.identity() or (None, None)
    return grpc.ssl_channel_credentials(tls.trusted(), key, certificate)
