"""The cluster engine on Redis or Valkey: one server, Sentinel, or Redis Cluster.

redis_engine          the class: what `Engine` describes, by scripts
redis_scripts         the scripts in Lua, each one operation of the server
channel_keys          names of keys; partitions, so that all keys of a channel have one slot
redis_url             servers as a URL describes them
redis_fitness         version, rights and eviction policy of a server
redis_calls           sends commands to the right server, and again after a failover
node_leases           the leases of nodes, one in each partition
channel_watches       subscriptions, which survive lost connections
pipelined_connection  one connection for many calls at a time
open_connections      the connections to each server
setting_names         errors in the words of the cluster's settings
log_cleanup           deletes the keys of channels that nobody uses
"""
