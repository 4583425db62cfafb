"""Room `channels`: paths, policies, and the one running stream of each channel.

A channel moves packets, that is bytes: no module here knows frame values, gRPC or an author's
class. `path` builds and reads channel paths, `policy` holds every number, `mailbox` is what one
reader has not fetched yet, `registry` starts and ends the streams. May import `frames` and the
ground (`errors`, `telemetry`).
"""
