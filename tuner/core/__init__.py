"""The basis of all layers: quantities, intervals, SLOs, errors, files, leases. It imports no other layer."""
