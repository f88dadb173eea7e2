"""What every layer uses: quantities, intervals, SLOs, errors, files, leases. Imports no other layer."""
