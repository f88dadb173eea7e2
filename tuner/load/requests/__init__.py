"""Serialised requests for gRPC or HTTP, with tensors in the body or in shared memory."""
