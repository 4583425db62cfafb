"""The cluster engine on NATS JetStream."""
