"""Unary gRPC at wire level: HTTP/2 framing of our own, with little CPU time and latency per request."""
