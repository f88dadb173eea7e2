"""Unary gRPC at wire level: HTTP/2 framing of our own, for a client that costs little and adds little latency."""
