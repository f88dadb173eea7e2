"""The service: a queue of jobs over the slots of a host, a REST API, and a dashboard."""
