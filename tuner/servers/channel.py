"""How every gRPC channel to a Triton is set up."""

from __future__ import annotations

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that died on the same port leaves its connection's long back-off behind in the shared pool.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy of the environment would be measured, too, or know nothing of a loopback address.
    ("grpc.enable_http_proxy", 0),
)
