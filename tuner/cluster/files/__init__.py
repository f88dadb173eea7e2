"""The model repository on the hosts of a cluster: its manifest, the cache of each host, and the transfer.

On the user's machine: `source = Source.of(repository, note)`. On a host: `HostTree(FileCache.of_this_user(host),
source.manifest)`. The tree's `repository` is complete after `send(source, inbox, host, note)` on the user's machine,
where `inbox` calls the methods of the tree. `close()` ends its use. `first_difference` compares a repository that a
host already has.
"""
