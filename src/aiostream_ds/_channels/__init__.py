"""Channels: at most one running stream for each path, and a subscription for each RunStream call.

A channel moves packets of encoded bytes. Nothing here knows frame values, gRPC or an author's
class. `registry` starts and ends the channels, `channel` runs one stream, `subscription` is the
queue of one subscriber, `log` is the replay buffer, `policy` has every number.
"""
