"""The model repository on the hosts of a cluster: its manifest, the cache of each host, and the transfer."""
