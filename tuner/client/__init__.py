"""The client of the service's REST API, and the resources that both sides exchange."""

from tuner.client.client import Client

__all__ = ["Client"]
