"""Night after night: keeps the deployed config the best one, and tells when it got slower."""
