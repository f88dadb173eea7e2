"""The client of the service's REST API, and the resources that both sides exchange."""
