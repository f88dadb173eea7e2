"""The REST API of the service: one module a resource. `tuner.service.operations` does the work."""
