"""Requests as they go over the wire, over gRPC or HTTP, with their tensors in them or in shared memory."""
